"""A real ``carmeld`` in a network namespace of its own, and one that stands for the world outside.

``host`` has ``up0``, which leads to ``out0`` in ``outside``. Nothing of this machine's own network is touched.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig
from carmel.network.names import PORT
from tests.api import GUEST_SECONDS
from tests.daemon import Daemon, daemon_directory, is_ready

HERE, OUTSIDE = "192.0.2.1", "192.0.2.2"
SUBNET, GATEWAY = "10.77.0.0/24", "10.77.0.1"


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name
        self.into = ("nsenter", f"--net={self.path}", "--")

    def run(self, *words: str, check: bool = True) -> str:
        result = subprocess.run([*self.into, *words], check=False, capture_output=True, text=True, timeout=30)
        assert not check or result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout

    def can(self, *words: str) -> bool:
        return subprocess.run([*self.into, *words], check=False, capture_output=True, timeout=30).returncode == 0

    def ip(self, line: str) -> None:
        self.run("ip", *line.split())

    def links(self) -> set[str]:
        return {line.split(":")[1].strip().split("@")[0] for line in self.run("ip", "-o", "link").splitlines()}

    def tables(self) -> set[str]:
        return set(self.run("nft", "list", "tables").splitlines())

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program, until the end of the block."""
        process = subprocess.Popen([*self.into, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Console:
    """The shell on a guest's serial console, by its socket: it needs no daemon."""

    def __init__(self, daemon: Daemon, uid: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(GUEST_SECONDS)
        self._socket.connect(str(daemon.paths.machine(uid).serial_socket))

    def run(self, line: str) -> str:
        """What the command says, and its exit status as the last line."""
        begin, end = secrets.token_hex(4), secrets.token_hex(4)
        # Halves of each word: the terminal echoes the line that is typed, too.
        self._socket.sendall(f'\necho {begin[:4]}""{begin[4:]}; {line}; echo $?{end[:4]}""{end[4:]}\n'.encode())
        said = b""
        while end.encode() not in said:
            chunk = self._socket.recv(4096)
            assert chunk, f"the console ended: {said!r}"
            said += chunk
        text = said.decode("utf-8", "replace").replace("\r", "")
        return text.partition(f"{begin}\n")[2].rpartition(end)[0]

    def does(self, line: str) -> bool:
        return self.run(line).splitlines()[-1] == "0"

    def close(self) -> None:
        self._socket.close()


class Site:
    """``daemon`` serves from ``host``."""

    def __init__(self, daemon: Daemon, host: Namespace, outside: Namespace) -> None:
        self.daemon = daemon
        self.host = host
        self.outside = outside

    def network(self, name: str, **spec: object) -> JsonObject:
        """Made, and settled one way or the other."""
        self.daemon.create("network", {"metadata": {"name": name}, "spec": spec}, None)
        return self.settled(name)

    def settled(self, name: str) -> JsonObject:
        def holds(network: JsonObject) -> bool:
            return bool(dig(network, "status", "observedGeneration") == network["metadata"]["generation"])

        return self.daemon.wait_for("network", name, holds, namespace=None)

    def nat(self, name: str = "inner", subnet: str = SUBNET) -> JsonObject:
        return self.network(name, provider="nat", nat={"subnet": subnet})

    def boot(self, name: str = "w", **nic: object) -> JsonObject:
        """A VM with one NIC, whose guest is up and has an address."""
        self.start(name, {"name": "eth0", "networkRef": {"name": "inner"}, **nic})
        self.daemon.wait_for("vm", name, is_ready)
        self.daemon.wait_for_console(name, "ready nonce=")
        return self.daemon.get("vm", name)

    def start(self, name: str, *nics: JsonObject, **spec: object) -> None:
        self.daemon.create("vm", self.daemon.micro_vm(name, f"carmel.nonce={name}", networks=list(nics), **spec))

    def port(self, name: str = "w-eth0") -> JsonObject:
        return self.daemon.get("port", name)

    @contextlib.contextmanager
    def console(self, name: str = "w") -> Iterator[Console]:
        console = Console(self.daemon, self.daemon.get("vm", name)["metadata"]["uid"])
        try:
            yield console
        finally:
            console.close()

    def taps(self) -> set[str]:
        return {name for name in self.host.links() if name.startswith(PORT)}

    def clean(self) -> None:
        """Through the API; then nothing of Carmel's may be left in the kernel."""
        if self.daemon.process is None:
            self.daemon.start()
        self.daemon.delete_all_vms()
        for kind, namespace in (("firewallpolicy", "default"), ("network", None)):
            for one in self.daemon.client.list(self.daemon.client.kind(kind), Selection(namespace))["items"]:
                if one["metadata"]["name"] != "default":
                    self.daemon.delete(kind, one["metadata"]["name"], namespace)
                    self.daemon.wait_gone(kind, one["metadata"]["name"], namespace)


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Of what nobody tells: asked again until it is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def address(vm: JsonObject) -> IPv4Address:
    return IPv4Address(vm["status"]["addresses"][0])


@contextlib.contextmanager
def open_site() -> Iterator[Site]:
    tag = f"cml{secrets.token_hex(3)}"
    host, outside = Namespace(f"{tag}host"), Namespace(f"{tag}out")
    with contextlib.ExitStack() as stack:
        for space in (host, outside):
            subprocess.run(["ip", "netns", "add", space.name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", space.name], check=True)
            space.ip("link set lo up")
        host.ip(f"link add up0 type veth peer name out0 netns {outside.name}")
        for space, link, own in ((host, "up0", HERE), (outside, "out0", OUTSIDE)):
            space.ip(f"addr add {own}/24 dev {link}")
            space.ip(f"link set {link} up")
        root = stack.enter_context(daemon_directory())
        daemon = Daemon(root)
        stack.callback(daemon.close)
        # What the image is made of is fetched by this machine's own network, once for all tests.
        daemon.start()
        daemon.make_micro_image()
        daemon.stop()
        daemon.prefix = host.into
        daemon.start()
        yield Site(daemon, host, outside)
