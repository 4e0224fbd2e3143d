"""kubectl against a real daemon, with the configuration that ``carmel kubeconfig`` prints, and a real VM."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from carmel.client.objects import dig
from tests.daemon import Daemon, running_daemon
from tests.programs import Program, carmel, kubectl
from tests.system.kubectl.test_kubectl import debian_kubectl

pytestmark = pytest.mark.timeout(300)


AGE = re.compile(r"\d+[ms](\d+s)?")


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        running.make_micro_image()
        yield running


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    yield shared_daemon
    shared_daemon.delete_all_vms()
    assert shared_daemon.leftovers() == []


@pytest.fixture(params=["debian", "current"])
def program(request: pytest.FixtureRequest) -> Path:
    """Debian's 1.20.2, and the one that the lock file pins."""
    return debian_kubectl() if request.param == "debian" else Path(sys.executable).parent / "kubectl"


@pytest.fixture
def our(daemon: Daemon, tmp_path: Path) -> Program:
    return carmel(daemon, tmp_path)


@pytest.fixture
def kube(daemon: Daemon, our: Program, program: Path, tmp_path: Path) -> Program:
    return as_user(daemon, our, program, tmp_path / "admin")


def as_user(daemon: Daemon, our: Program, program: Path, folder: Path, *words: str) -> Program:
    folder.mkdir()
    (folder / "config").write_text(our("kubeconfig", *words))
    return kubectl(daemon, program, folder / "config")


def manifest(daemon: Daemon, name: str = "w", **spec: Any) -> str:
    vm = {"apiVersion": "carmel.dev/v1alpha1", "kind": "VirtualMachine", **daemon.micro_vm(name, **spec)}
    return yaml.safe_dump(vm)


def columns(table: str) -> list[list[str]]:
    """Without the age, which goes on between two calls, and without marks of cells that are empty: kubectl has none."""
    rows = ([cell for cell in line.split() if cell != "<none>"] for line in table.splitlines())
    return [[cell for cell in row if not AGE.fullmatch(cell)] for row in rows]


def test_the_life_of_a_vm(daemon: Daemon, our: Program, kube: Program) -> None:
    assert (
        kube("apply", "-f", "-", stdin=manifest(daemon, networks=[{"name": "net0"}]))
        == "virtualmachine.carmel.dev/w created\n"
    )
    assert "condition met" in kube("wait", "--for=condition=Ready", "vm/w", "--timeout=90s")
    assert daemon.qemu_pids()
    # The last thing that changes in the table.
    daemon.wait_for("vm", "w", lambda vm: bool(dig(vm, "status", "addresses")))
    for words in (("get", "vm"), ("get", "vm", "-o", "wide"), ("get", "virtualmachines", "w")):
        assert columns(kube(*words)) == columns(our(*words))
    theirs, ours = (json.loads(program("get", "vm", "w", "-o", "json")) for program in (kube, our))
    assert (theirs["spec"], theirs["metadata"]["uid"]) == (ours["spec"], ours["metadata"]["uid"])

    off = '{"spec":{"powerState":"PoweredOff","powerOffMode":"Hard"}}'
    assert "patched" in kube("patch", "vm", "w", "--type=merge", "-p", off)
    our("wait", "vm", "w", "--for=stopped")
    assert daemon.qemu_pids() == []
    assert "patched" in kube("patch", "vm", "w", "--type=merge", "-p", '{"spec":{"powerState":"PoweredOn"}}')
    assert "condition met" in kube("wait", "--for=condition=Ready", "vm/w", "--timeout=90s")
    assert "deleted" in kube("delete", "vm", "w", "--wait", "--timeout=90s")
    # kubectl came back when the object was gone; then nothing of the VM is there any more either.
    assert daemon.leftovers() == []
    assert kube.run("get", "vm", "w").status == 1


def test_the_same_manifest_by_both(daemon: Daemon, our: Program, kube: Program) -> None:
    both = [manifest(daemon, name, powerState="PoweredOff", cpu={"count": 2}) for name in ("ours", "theirs")]
    our("apply", "-f", "-", stdin=both[0])
    kube("apply", "--server-side", "-f", "-", stdin=both[1])
    ours, theirs = (daemon.get("vm", name) for name in ("ours", "theirs"))
    assert ours["spec"] == theirs["spec"]
    # And once more, each: nothing to do.
    assert "unchanged" in our("apply", "-f", "-", stdin=both[0])
    kube("apply", "--server-side", "-f", "-", stdin=both[1])
    for name, before in (("ours", ours), ("theirs", theirs)):
        assert daemon.get("vm", name)["metadata"]["generation"] == before["metadata"]["generation"]

    plain = manifest(daemon, "plain", powerState="PoweredOff", cpu={"count": 2})
    assert "created" in kube("apply", "-f", "-", stdin=plain)
    assert daemon.get("vm", "plain")["spec"] == ours["spec"]
    assert "unchanged" in kube("apply", "-f", "-", stdin=plain)


def test_a_viewer_may_look_and_nothing_else(daemon: Daemon, our: Program, program: Path, tmp_path: Path) -> None:
    daemon.create("vm", daemon.micro_vm("w", powerState="PoweredOff"))
    eve = as_user(daemon, our, program, tmp_path / "eve", "--user", "eve", "--role", "viewer")
    assert "w" in eve("get", "vm")
    assert eve("auth", "can-i", "get", "vm").strip() == "yes"
    assert eve.run("auth", "can-i", "delete", "vm").stdout.strip() == "no"
    for words in (
        ("delete", "vm", "w"),
        ("patch", "vm", "w", "--type=merge", "-p", '{"spec":{"powerState":"PoweredOn"}}'),
        ("get", "secrets"),
        ("get", "vm", "-n", "kube-system"),
    ):
        refused = eve.run(*words)
        assert refused.status == 1
        assert "Forbidden" in refused.stderr
        assert "eve" in refused.stderr
    assert daemon.get("vm", "w")["metadata"].get("deletionTimestamp") is None
