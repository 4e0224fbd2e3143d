"""VMs through the API of a real daemon, with real QEMU and the micro guest."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket

from carmel.client.objects import JsonObject, condition, dig
from tests.api import GUEST_SECONDS
from tests.daemon import Daemon, ended_by, has_power, is_ready, not_ready_because


def boot(daemon: Daemon, name: str = "w", **spec: object) -> tuple[JsonObject, str]:
    """A VM whose guest is up, and the line in which the guest says so."""
    nonce = secrets.token_hex(8)
    daemon.create("vm", daemon.micro_vm(name, f"carmel.nonce={nonce}", **spec))
    daemon.wait_for("vm", name, is_ready)
    said = daemon.wait_for_console(name, f"ready nonce={nonce}")
    ready = next(line for line in said.splitlines() if f"ready nonce={nonce}" in line)
    return daemon.get("vm", name), ready


def type_at(daemon: Daemon, uid: str, line: str, answer: str) -> None:
    """At the guest's serial console, by its socket alone: works without a daemon. Returns when ``answer`` came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        console.settimeout(GUEST_SECONDS)
        console.connect(str(daemon.paths.machine(uid).serial_socket))
        console.sendall(f"\n{line}\n".encode())
        said = b""
        while answer.encode() not in said:
            chunk = console.recv(4096)
            assert chunk, f"the console ended before {answer!r}: {said!r}"
            said += chunk


def test_guest_boots_and_says_its_nonce(daemon: Daemon) -> None:
    vm, ready = boot(daemon, disks=[{"name": "data", "size": "16Mi"}], networks=[{"name": "net0"}])
    assert re.search(r"boot-id=[0-9a-f-]{36}", ready)
    status = vm["status"]
    assert status["powerState"] == "PoweredOn"
    assert status["launchID"]
    assert status["machineType"].startswith("virt-")
    assert status["networks"][0]["mac"].startswith("52:54:00:")
    assert status["addresses"] == ["10.0.2.15"]
    assert status["disks"] == [{"name": "data", "volumeName": "w-data", "capacityBytes": 16 * 2**20}]
    assert daemon.get("volume", "w-data")["status"]["usedBy"] == "w"
    for type_ in ("Ready", "Accepted", "Placed", "LiveMigratable"):
        assert condition(vm, type_)["status"] == "True"


def test_vm_outlives_the_daemon(daemon: Daemon) -> None:
    vm, _ = boot(daemon)
    pids = daemon.qemu_pids()
    daemon.restart()
    again = daemon.wait_for("vm", "w", is_ready)
    assert again["status"]["launchID"] == vm["status"]["launchID"]
    assert daemon.qemu_pids() == pids
    # The same guest, not another one that looks alike.
    log = daemon.wait_for_console("w", "ready")
    assert log.count("carmel micro: ready") == 1


def test_guest_that_powers_off_while_no_daemon_runs(daemon: Daemon) -> None:
    vm, _ = boot(daemon)
    daemon.kill()
    type_at(daemon, vm["metadata"]["uid"], "poweroff", "Power down")
    daemon.start()
    off = daemon.wait_for("vm", "w", ended_by("GuestShutdown"))
    assert off["status"]["lastTermination"]["launchID"] == vm["status"]["launchID"]
    off = daemon.wait_for("vm", "w", not_ready_because("GuestShutdown"))
    assert off["status"]["powerState"] == "PoweredOff"
    assert "restartPolicy is OnFailure" in condition(off, "Ready")["message"]
    assert daemon.qemu_pids() == []


def test_guest_that_panics_while_no_daemon_runs(daemon: Daemon) -> None:
    vm, _ = boot(daemon, restartPolicy="Never")
    daemon.kill()
    type_at(daemon, vm["metadata"]["uid"], "echo c > /proc/sysrq-trigger", "Kernel panic")
    daemon.start()
    ended = daemon.wait_for("vm", "w", not_ready_because("GuestPanic"))
    assert ended["status"]["lastTermination"]["reason"] == "GuestPanic"
    assert "restartPolicy is Never" in condition(ended, "Ready")["message"]


def test_killed_qemu_is_told_and_restarted(daemon: Daemon) -> None:
    vm, _ = boot(daemon)
    (pid,) = daemon.qemu_pids()
    os.kill(pid, signal.SIGKILL)
    again = daemon.wait_for("vm", "w", lambda one: is_ready(one) and dig(one, "status", "restartCount") == 1)
    end = again["status"]["lastTermination"]
    assert (end["reason"], end["signal"]) == ("QEMUFailed", 9)
    assert again["status"]["launchID"] != vm["status"]["launchID"] == end["launchID"]


def test_pause_resume_suspend_resume(daemon: Daemon) -> None:
    vm, _ = boot(daemon)
    daemon.patch("vm", "w", {"spec": {"powerState": "Paused"}})
    daemon.wait_for("vm", "w", has_power("Paused"))
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOn"}})
    running = daemon.wait_for("vm", "w", is_ready)
    assert running["status"]["launchID"] == vm["status"]["launchID"]
    daemon.patch("vm", "w", {"spec": {"powerState": "Suspended"}})
    daemon.wait_for("vm", "w", has_power("Suspended"))
    assert daemon.qemu_pids() == []
    daemon.restart()
    assert daemon.get("vm", "w")["status"]["powerState"] == "Suspended"
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOn"}})
    daemon.wait_for("vm", "w", is_ready)
    type_at(daemon, vm["metadata"]["uid"], "echo it is $((6 * 7))", "it is 42")
    log = daemon.wait_for_console("w", "it is 42")
    assert log.count("carmel micro: ready") == 1
    assert not daemon.paths.machine(vm["metadata"]["uid"]).saved_state.exists()


def test_soft_stop_presses_the_power_button(daemon: Daemon) -> None:
    boot(daemon)
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOff", "powerOffMode": "Soft"}})
    off = daemon.wait_for("vm", "w", not_ready_because("PoweredOff"))
    assert off["status"]["powerState"] == "PoweredOff"
    assert off["status"]["lastTermination"]["reason"] == "GuestShutdown"
    assert "launchID" not in off["status"]
    # It was asked for, so the wish to run again is a new one.
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOn"}})
    daemon.wait_for("vm", "w", is_ready)


def test_hard_stop_pulls_the_plug(daemon: Daemon) -> None:
    boot(daemon)
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
    off = daemon.wait_for("vm", "w", not_ready_because("PoweredOff"))
    assert off["status"]["lastTermination"]["reason"] == "HostRequest"
    assert daemon.qemu_pids() == []


def test_guest_that_ignores_the_button_is_powered_off_after_the_timeout(daemon: Daemon) -> None:
    # Before its init runs, a guest hears no button; this one never gets there.
    daemon.create("vm", daemon.micro_vm("w", "rdinit=/nowhere init=/nowhere panic=0", powerOffTimeoutSeconds=2))
    daemon.wait_for("vm", "w", is_ready)
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOff", "restartPolicy": "Never"}})
    off = daemon.wait_for("vm", "w", has_power("PoweredOff"))
    assert off["status"]["lastTermination"]["reason"] in {"HostRequest", "GuestPanic"}


def test_restart_takes_the_changed_spec(daemon: Daemon) -> None:
    vm, _ = boot(daemon, powerOffMode="Hard")
    daemon.patch("vm", "w", {"spec": {"memory": {"size": "160Mi"}}})
    changed = daemon.wait_for("vm", "w", lambda one: condition(one, "RestartRequired").get("status") == "True")
    assert "spec.memory" in condition(changed, "RestartRequired")["message"]
    daemon.patch("vm", "w", {"spec": {"restartRequestedAt": "2026-11-23T10:00:00Z"}})
    again = daemon.wait_for(
        "vm", "w", lambda one: is_ready(one) and dig(one, "status", "launchID") != vm["status"]["launchID"]
    )
    assert condition(again, "RestartRequired") == {}
    assert again["status"]["restartedAt"] == "2026-11-23T10:00:00Z"
    daemon.restart()
    assert daemon.wait_for("vm", "w", is_ready)["status"]["launchID"] == again["status"]["launchID"]


def test_nvme_disk_is_not_live_migratable(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused", disks=[{"name": "d", "bus": "nvme", "size": "16Mi"}]))
    vm = daemon.wait_for("vm", "w", has_power("Paused"))
    assert condition(vm, "LiveMigratable")["reason"] == "NonMigratableDevice"
    daemon.patch("vm", "w", {"spec": {"powerState": "Suspended"}})
    refused = daemon.wait_for("vm", "w", not_ready_because("NonMigratableDevice"))
    assert refused["status"]["powerState"] == "Paused"


def test_volume_is_attached_to_one_vm_at_a_time(daemon: Daemon) -> None:
    daemon.create("volume", {"metadata": {"name": "shared"}, "spec": {"size": "16Mi"}})
    disks = [{"name": "data", "volumeRef": {"name": "shared"}}]
    # Guests that stand still hear no power button.
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused", powerOffMode="Hard", disks=disks))
    daemon.wait_for("vm", "w", has_power("Paused"))
    daemon.create("vm", daemon.micro_vm("second", powerState="Paused", powerOffMode="Hard", disks=disks))
    waiting = daemon.wait_for("vm", "second", not_ready_because("VolumeInUse"))
    assert "VirtualMachine w" in condition(waiting, "Ready")["message"]
    daemon.delete("vm", "w")
    daemon.wait_for("vm", "second", has_power("Paused"))
    assert daemon.get("volume", "shared")["status"]["usedBy"] == "second"
    daemon.delete("vm", "second")
    daemon.wait_gone("vm", "second")
    assert "usedBy" not in daemon.get("volume", "shared")["status"]
    daemon.delete("volume", "shared")
    daemon.wait_gone("volume", "shared")


def test_deletion_takes_what_was_made_and_leaves_what_was_named(daemon: Daemon) -> None:
    disks = [{"name": "gone", "size": "16Mi"}, {"name": "kept", "size": "16Mi", "deletePolicy": "Retain"}]
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused", powerOffMode="Hard", disks=disks))
    vm = daemon.wait_for("vm", "w", has_power("Paused"))
    daemon.delete("vm", "w")
    daemon.wait_gone("vm", "w")
    daemon.wait_gone("volume", "w-gone")
    assert not daemon.paths.machine(vm["metadata"]["uid"]).state.exists()
    kept = daemon.get("volume", "w-kept")
    assert "ownerReferences" not in kept["metadata"]
    daemon.delete("volume", "w-kept")
    daemon.wait_gone("volume", "w-kept")


def test_vm_that_this_host_cannot_run_is_not_accepted(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", memory={"size": "64Ti"}, disks=[{"name": "d", "size": "16Mi"}]))
    vm = daemon.wait_for("vm", "w", not_ready_because("InsufficientMemory"))
    assert condition(vm, "Accepted")["status"] == "False"
    assert "64Ti" in condition(vm, "Accepted")["message"]
    assert dig(vm, "status", "disks") is None


def test_namespace_goes_with_its_vms(daemon: Daemon) -> None:
    daemon.create("namespace", {"metadata": {"name": "short"}}, namespace=None)
    daemon.create("image", {"metadata": {"name": "micro"}, "spec": {"source": {"build": {"recipe": "micro"}}}}, "short")
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused"), "short")
    daemon.wait_for("vm", "w", has_power("Paused"), namespace="short")
    daemon.delete("namespace", "short", None)
    daemon.wait_gone("namespace", "short", None)
    assert daemon.qemu_pids() == []
