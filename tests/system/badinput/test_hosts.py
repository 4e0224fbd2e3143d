"""A machine that is not as it should be: full, old, in another century, or without its files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.objects import condition, dig
from carmel.errors import CarmelError, NotFound
from tests.daemon import Daemon, daemon_directory, has_power, is_ready, not_ready_because, running_daemon
from tests.system.badinput.programs import Carmel


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon whose datastore is a file system of 100 MiB that nobody else sees and that ends with it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    with daemon_directory() as root:
        daemon = Daemon(root)
        store = daemon.paths.default_datastore
        wrapper = tmp_path / "python"
        wrapper.write_text(
            "#!/bin/sh\n"
            f'exec unshare --mount sh -c \'mkdir -p "{store}" && mount -t tmpfs -o size=100m,mode=0755 none "{store}"'
            f' && exec "{sys.executable}" "$@"\' sh "$@"\n'
        )
        wrapper.chmod(0o755)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(wrapper))
            daemon.start()
        try:
            yield daemon
        finally:
            daemon.close()


def test_a_disk_that_fills_in_the_middle_of_a_copy(small_disk: Daemon, tmp_path: Path) -> None:
    carmel = Carmel(small_disk, tmp_path)
    disk = tmp_path / "disk"
    # Fits as it comes; its copy does not fit beside it and the reserve.
    disk.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom((24 << 20) - 512))
    ended = carmel("image", "import", str(disk), "--name", "big", "-o", "json", "--timeout", "60s", status=5)
    assert ended.error["code"] == "DiskFull", ended.error
    assert ended.error["hint"]
    small_disk.wait_gone("image", "big")
    # All of it is free again: as much fits as before.
    disk.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom((8 << 20) - 512))
    carmel("image", "import", str(disk), "--name", "small")
    assert small_disk.get("image", "small")["status"]["phase"] == "Ready"
    assert "Traceback" not in small_disk.log.read_text()


@contextlib.contextmanager
def _port_of_its_own() -> Iterator[int]:
    """A TCP port for one daemon, which no other takes while that one is away: bound, and not listened on (ip(7))."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_clock_in_2001() -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("needs the package faketime")
    past = {"LD_PRELOAD": str(libraries[0]), "FAKETIME": "@2001-01-01 00:00:00", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with _port_of_its_own() as port, running_daemon(environ={**past, "CARMEL_HTTPS_PORT": str(port)}) as daemon:
        created = daemon.create("secret", {"metadata": {"name": "s"}})
        assert created["metadata"]["creationTimestamp"].startswith("2001-01-01")
        daemon.create("volume", {"metadata": {"name": "d"}, "spec": {"size": "4Mi"}})
        daemon.wait_for("volume", "d", is_ready)
        config = Carmel(daemon, daemon.root)("kubeconfig").stdout
        (daemon.root / "config").write_text(config)
        # The clock is set right: certificate and token hold on both sides of it.
        daemon.stop()
        daemon.environ = {"CARMEL_HTTPS_PORT": str(port)}
        daemon.start()
        now = Carmel(daemon, daemon.root)
        now.environment |= {"KUBECONFIG": str(daemon.root / "config"), "CARMEL_RUN_DIR": "/nonexistent"}
        assert "d" in now("--context", "carmel", "get", "volume").stdout
        daemon.delete("volume", "d")
        daemon.wait_gone("volume", "d")
        assert "Traceback" not in daemon.log.read_text()


def test_a_state_directory_that_was_deleted(tmp_path: Path) -> None:
    with running_daemon() as daemon:
        carmel = Carmel(daemon, tmp_path)
        shutil.rmtree(daemon.paths.state)
        text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
        ended = carmel("apply", "-o", "json", "-f", "-", stdin=text, status=1)
        assert ended.error["code"] == "StateDirectoryGone"
        assert "restart carmeld" in ended.error["hint"]
        with pytest.raises(NotFound):
            daemon.get("secret", "s")
        assert not daemon.paths.state.exists()


def test_a_port_of_a_vm_that_is_taken(tmp_path: Path) -> None:
    with running_daemon() as daemon, socket.create_server(("127.0.0.1", 0)) as taken:
        daemon.make_micro_image()
        port = taken.getsockname()[1]
        nics = [{"name": "n", "networkRef": {"name": "default"}, "forwards": [{"guestPort": 22, "hostPort": port}]}]
        daemon.create("vm", daemon.micro_vm("w", networks=nics))
        vm = daemon.wait_for("vm", "w", not_ready_because("PortInUse"))
        assert str(port) in condition(vm, "Ready")["message"]
        assert daemon.qemu_pids() == []
        taken.close()
        # Nobody has to say so again: it is tried again, and the port is free.
        daemon.wait_for("vm", "w", has_power("PoweredOn"))
        daemon.delete_all_vms()
        assert daemon.leftovers() == []


def test_two_daemons(tmp_path: Path) -> None:
    with running_daemon() as daemon:
        other = Daemon(daemon.root)
        other.root = tmp_path
        other.log = tmp_path / "log"
        with pytest.raises(AssertionError, match=r"exit status 5(.|\n)*another carmeld"):
            other.start()
        assert dig(daemon.get("namespace", "default", None), "status", "phase") == "Active"
        with pytest.raises(CarmelError):
            daemon.get("vm", "none")
