"""``carmel`` against a real daemon with real VMs: what a user sees on the first evening."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from carmel.cpulist import parse_cpu_list
from tests.daemon import Daemon, running_daemon

_PROGRAM = "import sys; from carmel.cli.main import main; sys.exit(main())"


class Carmel:
    """The command line of a user with a home of their own."""

    def __init__(self, daemon: Daemon, home: Path) -> None:
        self._environment = {**daemon.environment(), "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "KUBECONFIG", "CARMEL_CONTEXT"):
            self._environment.pop(name, None)

    def __call__(self, *words: str, stdin: str = "", status: int = 0, env: dict[str, str] | None = None) -> str:
        """Standard output. Fails unless it ends with ``status``."""
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=110,
            env={**self._environment, **(env or {})},
            check=False,
        )
        assert ended.returncode == status, f"{words}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout if status == 0 else ended.stderr


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        yield running


@pytest.fixture
def carmel(daemon: Daemon, tmp_path: Path) -> Iterator[Carmel]:
    yield Carmel(daemon, tmp_path)
    daemon.delete_all_vms()


def test_the_first_evening(carmel: Carmel) -> None:
    vm = json.loads(
        carmel("run", "micro", "--name", "w", "--memory", "128Mi", "--nonce", "n0", "--wait=ready", "-o", "json")
    )
    assert vm["status"]["powerState"] == "PoweredOn"
    launch = vm["status"]["launchID"]
    assert "w" in carmel("get", "vm", "--no-headers")
    carmel("console", "w", "--until", "ready nonce=n0", "--timeout", "90s")
    assert "Started" in carmel("describe", "vm", "w")
    assert "nonce=n0" in carmel("logs", "w")
    assert json.loads(carmel("host", "-o", "json"))["status"]["virtualMachines"] == 1

    carmel("pause", "w")
    assert "Paused" in carmel("get", "vm", "w")
    carmel("resume", "w")
    assert carmel("get", "vm", "w", "-o", "jsonpath=.status.launchID").strip() == launch

    assert "--force deletes without asking" in carmel("delete", "vm", "w", status=5)
    carmel("stop", "w", "--force")
    assert "is not running" in carmel("pause", "w", status=5)
    assert carmel("console", "w", status=5).startswith("error: ")
    carmel("start", "w")
    assert carmel("get", "vm", "w", "-o", "jsonpath=.status.launchID").strip() != launch
    carmel("delete", "vm", "w", "--force")
    carmel("get", "vm", "w", status=3)


def test_the_machine_is_drawn_with_its_vms_and_says_why_they_are_there(carmel: Carmel, tmp_path: Path) -> None:
    carmel("run", "micro", "--name", "here", "--cpus", "2", "--memory", "128Mi", "--network", "none", "--wait=running")
    picture = carmel("host", "--ascii", env={"COLUMNS": "100"})
    assert picture.isascii()
    assert max(map(len, picture.split("Name:")[0].splitlines())) <= 100
    assert re.search(r"^\| A here +2 shared +128 MiB", picture, re.MULTILINE)
    # What the kernel counts without us is what the picture has cells for.
    cells = re.findall(r"^\| +\d+ ([.+#? ]+)\|", picture, re.MULTILINE)
    online = (Path("/sys/devices/system/cpu") / "online").read_text()
    assert sum(len(row.replace(" ", "").rstrip()) for row in cells) == len(parse_cpu_list(online))

    told = carmel("describe", "vm", "here")
    assert re.search(r"^Placed: +NUMA node ", told, re.MULTILINE)
    assert "Why here:" in told
    assert carmel("host", "rebalance", "--dry-run").startswith("Nothing to move")
    assert carmel("host", "rebalance", "--timeout", "60s").startswith("Nothing was moved")

    manifest = tmp_path / "vms.yaml"
    manifest.write_text(_SMALL)
    planned = json.loads(carmel("plan", "--host", _host_name(carmel), "-f", str(manifest), "-o", "json"))
    assert [one["name"] for one in planned["virtualMachines"]] == ["small"]
    assert planned["virtualMachines"][0]["placement"]["reasons"]
    manifest.write_text(_SMALL.replace("64Mi", "200Ti"))
    assert "has no place on" in carmel("plan", "-f", str(manifest), status=5)


def _host_name(carmel: Carmel) -> str:
    return carmel("get", "host", "-o", "jsonpath={.items[0].metadata.name}").strip()


def test_what_is_typed_into_a_pipe_reaches_the_guest(carmel: Carmel) -> None:
    carmel("run", "micro", "--name", "typed", "--memory", "128Mi", "--network", "none")
    carmel("console", "typed", "--until", "micro:", "--timeout", "90s")
    said = carmel("console", "typed", "--until", "answer=42", "--timeout", "60s", stdin="echo answer=$((6*7))\n")
    assert "answer=42" in said


def test_a_vm_that_shut_itself_down_is_started_again(carmel: Carmel) -> None:
    carmel("run", "micro", "--name", "again", "--memory", "128Mi", "--network", "none")
    carmel("console", "again", "--until", "micro:", "--timeout", "90s")
    carmel("console", "again", stdin="poweroff\n")
    carmel("wait", "vm", "again", "--for=stopped")
    assert "GuestShutdown" in carmel("describe", "vm", "again")
    carmel("start", "again")
    assert "PoweredOn" in carmel("get", "vm", "again")


def test_another_machine_gets_in_over_https(carmel: Carmel, tmp_path: Path) -> None:
    config = carmel("kubeconfig", "--user", "alice", "--role", "viewer")
    (tmp_path / "alice.yaml").write_text(config)
    away = {"KUBECONFIG": str(tmp_path / "alice.yaml"), "CARMEL_RUN_DIR": "/nonexistent"}
    assert json.loads(carmel("--context", "carmel", "get", "vm", "-o", "json", env=away))["kind"] == "List"
    refused = carmel("--context", "carmel", "create", "-f", "-", stdin=_SECRET, status=5, env=away)
    assert "alice" in refused
    (tmp_path / "admin.yaml").write_text(carmel("kubeconfig"))
    away["KUBECONFIG"] = str(tmp_path / "admin.yaml")
    assert carmel("--context", "carmel", "create", "-f", "-", stdin=_SECRET, env=away) == "secret/s created\n"
    broken = yaml.safe_load(config)
    del broken["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "alice.yaml").write_text(yaml.safe_dump(broken))
    away["KUBECONFIG"] = str(tmp_path / "alice.yaml")
    assert "not trusted" in carmel("--context", "carmel", "get", "vm", status=5, env=away)


def test_a_daemon_that_comes_back_is_waited_for(carmel: Carmel, daemon: Daemon) -> None:
    carmel("run", "micro", "--name", "kept", "--memory", "128Mi", "--network", "none", "--wait=running")
    launch = carmel("get", "vm", "kept", "-o", "jsonpath=.status.launchID")
    daemon.kill()
    assert "not running" in carmel("get", "vm", status=1)
    daemon.start()
    carmel("wait", "vm", "kept", "--for=ready")
    assert carmel("get", "vm", "kept", "-o", "jsonpath=.status.launchID") == launch


_SMALL = """
apiVersion: carmel.dev/v1alpha1
kind: VirtualMachine
metadata: {name: small}
spec: {memory: {size: 64Mi}}
"""
_SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"
