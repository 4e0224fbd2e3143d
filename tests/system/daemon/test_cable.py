"""Two VMs on a cable: joined whoever comes first, and again when one was killed and came back."""

from __future__ import annotations

import json
import os
import secrets
import signal

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import Daemon, is_ready, not_ready_because
from tests.system.daemon.test_virtual_machines import type_at

NETWORK = "pair"


def boot(daemon: Daemon, name: str, address: str) -> JsonObject:
    nic = {"name": "eth0", "networkRef": {"name": NETWORK}}
    nonce = secrets.token_hex(8)
    daemon.create("vm", daemon.micro_vm(name, f"carmel.nonce={nonce}", networks=[nic]))
    vm = daemon.wait_for("vm", name, is_ready)
    daemon.wait_for_console(name, f"ready nonce={nonce}")
    plug_in(daemon, vm, address)
    return vm


def plug_in(daemon: Daemon, vm: JsonObject, address: str) -> None:
    type_at(daemon, vm["metadata"]["uid"], f"ip addr add {address}/24 dev eth0; echo has it $((6 * 7))", "has it 42")


def reaches(daemon: Daemon, vm: JsonObject, address: str) -> None:
    """``vm``'s guest gets answers from ``address``, sooner or later."""
    uid = vm["metadata"]["uid"]
    type_at(daemon, uid, f"until ping -c 2 -W 1 {address}; do :; done; echo heard $((6 * 7))", "heard 42")


def kill_qemu(daemon: Daemon, vm: JsonObject) -> JsonObject:
    """kill -9, and the VM when it runs again, its guest up."""
    name, uid = vm["metadata"]["name"], vm["metadata"]["uid"]
    record = json.loads(daemon.paths.machine(uid).launch_record.read_text())
    os.kill(record["process"]["pid"], signal.SIGKILL)
    again = daemon.wait_for(
        "vm", name, lambda one: is_ready(one) and dig(one, "status", "launchID") != record["launch_id"]
    )
    daemon.wait_for_console(name, "carmel micro: ready", times=2)
    return again


def test_two_vms_and_no_third(daemon: Daemon) -> None:
    daemon.create("network", {"metadata": {"name": NETWORK}, "spec": {"provider": "cable"}}, None)
    daemon.wait_for("network", NETWORK, is_ready, namespace=None)
    first = boot(daemon, "first", "10.9.0.1")
    second = boot(daemon, "second", "10.9.0.2")
    reaches(daemon, first, "10.9.0.2")
    nic = {"name": "eth0", "networkRef": {"name": NETWORK}}
    daemon.create("vm", daemon.micro_vm("third", networks=[nic]))
    third = daemon.wait_for("vm", "third", not_ready_because("CableTaken"))
    assert "default/first and default/second" in condition(third, "Ready")["message"]

    again = kill_qemu(daemon, second)
    plug_in(daemon, again, "10.9.0.2")
    reaches(daemon, first, "10.9.0.2")
    assert daemon.get("vm", "first")["status"]["launchID"] == first["status"]["launchID"]

    # The other one now, while no daemon looks on.
    daemon.restart()
    plug_in(daemon, kill_qemu(daemon, first), "10.9.0.1")
    reaches(daemon, again, "10.9.0.1")

    # Where an end becomes free, the third comes in without being asked.
    daemon.patch("vm", "second", {"spec": {"powerOffMode": "Hard"}})
    daemon.delete("vm", "second")
    third = daemon.wait_for("vm", "third", is_ready, seconds=180)
    daemon.wait_for_console("third", "carmel micro: ready")
    plug_in(daemon, third, "10.9.0.3")
    reaches(daemon, third, "10.9.0.1")
    daemon.delete_all_vms()
    assert list(daemon.paths.cables.glob("*")) == []
    daemon.delete("network", NETWORK, None)
