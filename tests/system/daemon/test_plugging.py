"""Disks that are added to the spec of a VM that runs are there at once, and gone when they are taken out of it."""

from __future__ import annotations

from carmel.client.objects import condition, dig
from tests.daemon import Daemon, is_ready
from tests.system.daemon.test_virtual_machines import boot, type_at


def test_a_disk_comes_and_goes_with_the_spec(daemon: Daemon) -> None:
    vm, _ = boot(daemon)
    uid = vm["metadata"]["uid"]
    daemon.patch("vm", "w", {"spec": {"disks": [{"name": "data", "size": "16Mi", "bus": "nvme"}]}})
    type_at(daemon, uid, "until [ -b /dev/nvme0n1 ]; do :; done; echo there $((6 * 7))", "there 42")
    daemon.wait_for("volume", "w-data", lambda volume: dig(volume, "status", "usedBy") == "w")
    daemon.restart()
    daemon.patch("vm", "w", {"spec": {"disks": []}})
    daemon.wait_for("volume", "w-data", lambda volume: dig(volume, "status", "usedBy") is None)
    type_at(daemon, uid, "[ -b /dev/nvme0n1 ] || echo gone $((6 * 7))", "gone 42")
    again = daemon.wait_for("vm", "w", is_ready)
    assert again["status"]["launchID"] == vm["status"]["launchID"]
    assert condition(again, "RestartRequired") == {}
