"""What a daemon says when it cannot do what is wanted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from carmel.client.api import Selection
from carmel.client.objects import condition
from carmel.errors import CarmelError
from tests.daemon import Daemon, has_power, is_ready, not_ready_because, running_daemon


def carmeld(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from carmel.daemon import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_second_daemon_on_one_state_directory(daemon: Daemon) -> None:
    second = carmeld(daemon)
    assert second.returncode == 5
    assert f"another carmeld (pid {daemon.pid}) uses the state directory" in second.stderr
    assert "Traceback" not in second.stderr
    # The first has not noticed.
    assert daemon.get("namespace", "default", None)["status"]["phase"] == "Active"


def test_port_in_use(daemon: Daemon) -> None:
    port = daemon.paths.https_port_file.read_text().strip()
    with (
        pytest.raises(AssertionError, match=f"port {port} on 127.0.0.1 is in use"),
        running_daemon("--https-port", port),
    ):
        pass


def test_no_qemu(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    # All that the daemon may need, but no QEMU.
    for name in ("qemu-img", "prlimit", "true"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    hidden = {"PATH": str(programs)}
    with running_daemon(environ=hidden) as daemon:
        (host,) = daemon.client.list(daemon.client.kind("host"), Selection())["items"]
        assert condition(host, "Ready")["reason"] == "ProgramMissing"
        assert "apt install qemu-system-arm" in condition(host, "Ready")["message"]
        daemon.create("vm", {"metadata": {"name": "w"}, "spec": {"memory": {"size": "128Mi"}}})
        vm = daemon.wait_for("vm", "w", not_ready_because("ProgramMissing"))
        assert "qemu-system-aarch64 is not installed" in condition(vm, "Ready")["message"]
        daemon.delete_all_vms()


def test_removed_state_directory() -> None:
    with running_daemon() as daemon:
        moved = daemon.paths.state.with_name("moved")
        daemon.paths.state.rename(moved)
        with pytest.raises(CarmelError) as caught:
            daemon.create("secret", {"metadata": {"name": "s"}})
        assert caught.value.code == "StateDirectoryGone"
        assert caught.value.hint is not None
        assert not daemon.paths.state.exists()
        assert daemon.get("namespace", "default", None)["metadata"]["name"] == "default"
        assert "was removed while carmeld runs" in daemon.log.read_text()
        # Brought back, it goes on.
        moved.rename(daemon.paths.state)
        daemon.create("secret", {"metadata": {"name": "s"}})


def test_missing_database_beside_running_vms(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused"))
    daemon.wait_for("vm", "w", has_power("Paused"))
    daemon.kill()
    pids = daemon.qemu_pids()
    files = [path for path in daemon.paths.state.iterdir() if path.name.startswith("store.sqlite")]
    for path in files:
        path.rename(daemon.root / path.name)
    refused = carmeld(daemon)
    assert refused.returncode == 5
    assert "launch records of 1 VMs" in refused.stderr
    assert daemon.qemu_pids() == pids
    for path in files:
        (daemon.root / path.name).rename(path)
    daemon.start()
    assert daemon.get("vm", "w")["status"]["powerState"] == "Paused"


def test_a_clean_stop_is_quick_and_leaves_vms_running(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused"))
    daemon.wait_for("vm", "w", has_power("Paused"))
    pids = daemon.qemu_pids()
    assert daemon.stop() == 0
    assert daemon.qemu_pids() == pids
    assert not daemon.paths.api_socket.exists()


def test_vm_without_its_kernel_image_says_so(daemon: Daemon) -> None:
    vm = daemon.micro_vm("w")
    vm["spec"]["firmware"]["imageRef"]["name"] = "later"
    daemon.create("vm", vm)
    waiting = daemon.wait_for("vm", "w", not_ready_because("WaitingForImage"))
    assert "there is no Image later" in condition(waiting, "Ready")["message"]
    daemon.make_micro_image("later")
    daemon.wait_for("vm", "w", is_ready)
    daemon.delete("vm", "w")
    daemon.wait_gone("vm", "w")
    daemon.delete("image", "later")
    daemon.wait_gone("image", "later")
