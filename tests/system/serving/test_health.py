"""Whoever asks whether the daemon lives gets an answer, also while it is busy with a long one."""

from __future__ import annotations

import asyncio
import http.client
import json
import select
import socket
from pathlib import Path

from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from tests.daemon import Daemon, running_daemon
from tests.stores import open_store

VMS = 5_000
ROUNDS = 10
_LIST = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""What kubectl asks for. Each row is made for it, which takes longest."""


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def has_come(connection: Connection) -> bool:
    return bool(select.select([connection.sock], [], [], 0)[0])


def is_healthy(connection: Connection) -> bool:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    return (answer.status, answer.read()) == (200, b"ok")


def fill(daemon: Daemon) -> None:
    """Copies of a VM, put into the store of the stopped daemon: by the API it would take a minute."""
    daemon.create("vm", daemon.micro_vm("first", powerState="PoweredOff"))
    first = daemon.wait_for("vm", "first", lambda vm: bool(vm["metadata"].get("finalizers")))
    daemon.stop()
    metadata = {key: first["metadata"][key] for key in ("namespace", "finalizers")}

    async def copy() -> None:
        async with open_store(daemon.paths.state) as store:
            for number in range(1, VMS):
                body = {"metadata": {**metadata, "name": f"vm-{number}"}, "spec": first["spec"]}
                await store.create(VIRTUAL_MACHINE, body)

    asyncio.run(copy())
    daemon.start()


def test_health_is_answered_while_a_long_list_is_produced() -> None:
    with running_daemon() as daemon:
        fill(daemon)
        listing, health = Connection(daemon.paths.api_socket), Connection(daemon.paths.api_socket)
        assert is_healthy(health)
        answered = []
        for _ in range(ROUNDS):
            listing.request("GET", _LIST, headers={"Accept": _TABLE})
            before = 0
            while not has_come(listing):
                assert is_healthy(health)
                before += 1
            # Most of the list still waits to be read.
            assert is_healthy(health)
            assert len(json.loads(listing.getresponse().read())["rows"]) == VMS
            answered.append(before)
        listing.close()
        health.close()
        # One answer may have been sent before the list was begun, and one came with the list's own beginning. Any
        # more were given in between.
        assert max(answered) > 2, answered
