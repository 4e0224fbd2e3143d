"""An emulated SmartNIC of network namespaces: a real ``carmeld --role smartnic`` in one, its host in another.

Ends of veth pairs stand for the representors, with the MAC addresses that the lab's have. Their other ends are the
functions, each in a namespace that stands for a VM that has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmel.apiserver.pki import authority, client
from carmel.client.api import Selection
from carmel.client.objects import JsonObject, condition
from tests.api import Predicate
from tests.daemon import Daemon, daemon_directory, is_ready

SUBNET = "10.77.0"
_ARGUMENTS = ("--role", "smartnic", "--https-address", "192.168.100.2", "--https-port", "17443")
API = "/apis/carmel.dev/v1alpha1"
PORTS = f"{API}/namespaces/default/ports"


def because(reason: str) -> Predicate:
    return lambda obj: condition(obj, "Ready").get("reason") == reason


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """What is put back within a second, on a busy machine."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str

    @property
    def body(self) -> JsonObject:
        found: JsonObject = json.loads(self.text)
        return found

    @property
    def code(self) -> str:
        """Carmel's own word for what went wrong."""
        return str(self.body["details"]["carmel"]["code"])


class Space:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.into = ("nsenter", f"--net=/run/netns/{name}", "--")

    def run(self, *argv: str, check: bool = True, stdin: str = "", environ: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self.into, *argv], check=False, input=stdin, text=True, capture_output=True, timeout=60, env=environ
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}"
        return done.stdout if check else str(done.returncode)

    def ip(self, line: str) -> str:
        return self.run("ip", *line.split())

    def succeeds(self, *argv: str) -> bool:
        return self.run(*argv, check=False) == "0"

    def reaches(self, address: str, source: str = "") -> bool:
        words = ["busybox", "ping", "-c", "1", "-W", "1", *(["-I", source] if source else []), address]
        # The first may be lost while neighbours are looked up.
        return self.succeeds(*words) or self.succeeds(*words)

    def links(self) -> set[str]:
        return {line.split(":")[1].strip().split("@")[0] for line in self.ip("-o link").splitlines()}


class Nic(Daemon):
    """``host``, ``space`` (the NIC's own) and the VMs' namespaces; the daemon as it is on the NIC."""

    patience = 20.0

    def __init__(self, root: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._tag = f"cmn{secrets.token_hex(3)}"
        self.space, self.host = self.make_space("nic"), self.make_space("host")
        self.space.ip("link add tmfifo_net0 type veth peer name tmfifo_net0 netns " + self.host.name)
        for space, end in ((self.host, 1), (self.space, 2)):
            space.ip(f"link set tmfifo_net0 address 52:54:00:ca:00:0{end}")
            space.ip(f"addr add 192.168.100.{end}/30 dev tmfifo_net0")
            space.ip("link set tmfifo_net0 up")
        super().__init__(root, prefix=self.space.into)
        self.keys = root / "keys"
        self.keys.mkdir()
        self.vms = [self.make_vm(number) for number in range(2)]

    # -- what there is --------------------------------------------------------------------------------------------
    def make_space(self, what: str) -> Space:
        space = Space(f"{self._tag}{what}")
        subprocess.run(["ip", "netns", "add", space.name], check=True)
        self._stack.callback(subprocess.run, ["ip", "netns", "delete", space.name], check=True)
        self._stack.callback(_end_all, space)
        space.ip("link set lo up")
        return space

    def make_vm(self, number: int) -> Space:
        space = self.make_space(f"vm{number}")
        self.hot_plug(number, space)
        return space

    def hot_plug(self, number: int, vm: Space) -> None:
        """A function, and its representor."""
        name = f"pf0vf{number}"
        self.space.ip(f"link add {name} address 52:54:00:ca:02:{number:02x} type veth peer name eth0 netns {vm.name}")
        vm.ip(f"link set eth0 address {mac(number)}")
        vm.ip("link set eth0 up")
        vm.ip(f"addr add {SUBNET}.{10 + number}/24 dev eth0")

    def reach(self, number: int = 0, other: int = 1) -> bool:
        return self.vms[number].reaches(f"{SUBNET}.{10 + other}")

    def plugged(self) -> set[str]:
        """Interfaces of ports that there are."""
        return {name for name in self.space.links() if name.startswith("cmp")}

    def own_name(self) -> str:
        name: str = self.client.list(self.client.kind("smartnic"), Selection())["items"][0]["metadata"]["name"]
        return name

    # -- its daemon -----------------------------------------------------------------------------------------------
    def start(self, *arguments: str) -> None:
        super().start(*_ARGUMENTS, *arguments)

    def invite(self, host: str = "server-1") -> None:
        """Sign what the host is known by, as ``carmel smartnic invite`` does."""
        for name, text in client(self.paths.pki, authority(self.paths.pki), host).items():
            (self.keys / name).write_text(text)

    def as_host(self, method: str, path: str, body: Any = None) -> Answer:
        """A request of the host's, over mutual TLS on the internal link."""
        words = [sys.executable, "-m", "tests.system.smartnic.ask", str(self.keys), method, path]
        told = self.host.run(*words, stdin="" if body is None else json.dumps(body), environ=self.environment())
        status, _, text = told.partition("\n")
        return Answer(int(status), text)

    def bind(self, port: str, function: str | None) -> Answer:
        return self.as_host("POST", f"{PORTS}/{port}/binding", {"function": function})

    def end_servers(self) -> None:
        """DHCP servers, which are the NIC's and outlive its daemon."""
        _end_all(self.space)

    # -- what its administrators make -----------------------------------------------------------------------------
    def make_network(self, **spec: Any) -> None:
        spec = spec or {"provider": "nat", "nat": {"subnet": f"{SUBNET}.0/24"}}
        kind = {"apiVersion": "carmel.dev/v1alpha1", "kind": "Network"}
        self.create("network", {**kind, "metadata": {"name": "lan"}, "spec": spec}, None)
        self.wait_for("network", "lan", is_ready, namespace=None)

    def make_port(self, number: int, **spec: Any) -> None:
        """``vm0-eth0`` for the VM that function 0 is for, and so on."""
        self.create("port", port(number, **spec))

    def wait_plugged(self, number: int) -> JsonObject:
        """Until the port is as it is wanted now: not just as it was wanted before."""
        return self.wait_for(
            "port",
            f"vm{number}-eth0",
            lambda one: is_ready(one) and one["status"]["observedGeneration"] == one["metadata"]["generation"],
        )

    def plug_both(self) -> None:
        """Two VMs that reach each other."""
        self.make_network()
        for number in range(2):
            self.make_port(number)
            assert self.bind(f"vm{number}-eth0", f"pf0vf{number}").status == 201
            self.wait_plugged(number)


def mac(number: int) -> str:
    return f"52:54:00:ca:01:{number:02x}"


def port(number: int, **spec: Any) -> JsonObject:
    wanted = {
        "networkRef": {"name": "lan"},
        "vmRef": {"name": f"vm{number}"},
        "nic": "eth0",
        "owner": f"uid-of-vm{number}",
        "mac": mac(number),
        "addresses": [f"{SUBNET}.{10 + number}"],
    }
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "Port",
        "metadata": {"name": f"vm{number}-eth0", "labels": {"app": f"vm{number}"}},
        "spec": {**wanted, **spec},
    }


def _end_all(space: Space) -> None:
    """Of a test that failed: whoever lives in a namespace that is ours alone."""
    listed = subprocess.run(["ip", "netns", "pids", space.name], check=True, text=True, capture_output=True).stdout
    for pid in map(int, listed.split()):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running_nic() -> Iterator[Nic]:
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(daemon_directory())
        nic = Nic(root, stack)
        stack.callback(nic.close)
        nic.start()
        nic.invite()
        yield nic
