"""An emulated dual-socket Arm server that boots the host image, driven from outside: QEMU, ssh and the API.

Deliberately started by this file and not by Carmel: what is proven here is the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carmel.client.api import Client
from carmel.client.endpoint import Context, HttpsEndpoint
from carmel.errors import CarmelError
from carmel.run import Command, Limits, SystemRunner
from carmel.units import GIB, MIB

BOOT_SECONDS = 900
ESP_OFFSET = 1 * MIB
API_PORT = 17443
_FIRMWARE = Path("/usr/share/AAVMF")
_FLASH_BYTES = 64 * MIB
_PAUSE = 0.5
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*words: str | Path, seconds: float = 300, check: bool = True) -> str:
    command = Command(list(words), limits=Limits(seconds=seconds, output_bytes=16 * MIB))
    return asyncio.run(SystemRunner().run(command, check=check)).text


def until(what: Callable[[], T], seconds: float, told: Callable[[], str] = lambda: "") -> T:
    """Ask again until the answer is true; errors that may pass count as not yet."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (CarmelError, AssertionError) as exc:
            last = str(exc)
        # There is nothing to be woken by: the other side is a machine that boots.
        time.sleep(_PAUSE)
    raise AssertionError(f"not in {seconds} s: {last} {told()}")


@dataclass
class Machine:
    """One server with its disks in ``folder``. ``start`` and ``cut`` it as often as needed."""

    folder: Path
    image: Path
    token: str
    ssh_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    boots: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _authority: str = ""

    # -- making it ----------------------------------------------------------------------------------------------
    def install(self, configuration: str) -> None:
        """Write the image to the server's disk, which is larger, and put the configuration onto its ESP."""
        run("qemu-img", "convert", "-O", "raw", self.image, self.disk)
        self.configure(configuration)
        with self.disk.open("r+b") as file:
            file.truncate(8 * GIB)
        with (self.folder / "nvme.raw").open("xb") as file:
            file.truncate(1 * GIB)
        for name in ("AAVMF_CODE.fd", "AAVMF_VARS.fd"):
            shutil.copy(_FIRMWARE / name, self.folder / name)
            with (self.folder / name).open("r+b") as file:
                file.truncate(_FLASH_BYTES)

    def configure(self, configuration: str) -> None:
        (self.folder / "carmel.yaml").write_text(configuration)
        run("mcopy", "-o", "-i", f"{self.disk}@@{ESP_OFFSET}", self.folder / "carmel.yaml", "::/carmel.yaml")

    def boot_files(self) -> tuple[Path, Path, str]:
        """Kernel, initramfs and command line, as the ESP has them."""
        esp = f"{self.disk}@@{ESP_OFFSET}"
        entry = run("mtype", "-i", esp, next(line for line in self._entries(esp)))
        facts = dict(line.split(maxsplit=1) for line in entry.splitlines() if line.strip())
        files = []
        for word in ("linux", "initrd"):
            target = self.folder / word
            run("mcopy", "-o", "-i", esp, f"::{facts[word]}", target)
            files.append(target)
        return files[0], files[1], facts["options"]

    @staticmethod
    def _entries(esp: str) -> Iterator[str]:
        for line in run("mdir", "-b", "-i", esp, "::/loader/entries").splitlines():
            if line.endswith(".conf"):
                yield line.strip()

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def key(self) -> Path:
        return self.folder / "id"

    def make_key(self) -> str:
        """The public half, as ``carmel.yaml`` takes it."""
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        self.key.touch(mode=0o600)
        self.key.write_bytes(pem)
        encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        return private.public_key().public_bytes(encoding, form).decode()

    # -- power --------------------------------------------------------------------------------------------------
    def start(self, *, direct: tuple[Path, Path, str] | None = None) -> None:
        """By UEFI, or (``direct``) with a kernel given by QEMU and a device tree instead of ACPI."""
        assert self._process is None
        self.boots += 1
        boot: list[str | Path] = []
        if direct is None:
            for name, readonly in (("AAVMF_CODE.fd", "on"), ("AAVMF_VARS.fd", "off")):
                boot += ["-drive", f"if=pflash,format=raw,readonly={readonly},file={self.folder / name}"]
        else:
            kernel, initrd, line = direct
            boot += ["-kernel", kernel, "-initrd", initrd, "-append", line]
        ports = {self.ssh_port: 22, self.api_port: API_PORT}
        forwards = [f"hostfwd=tcp:127.0.0.1:{ours}-:{theirs}" for ours, theirs in ports.items()]
        words: list[str | Path] = [
            "qemu-system-aarch64", "-M", "virt,virtualization=on,gic-version=3", "-accel", "tcg,thread=multi",
            "-cpu", "neoverse-n1", "-smp", "4,sockets=2,cores=2,threads=1", "-m", "3072",
            "-object", "memory-backend-ram,id=m0,size=1536M", "-object", "memory-backend-ram,id=m1,size=1536M",
            "-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1",
            "-numa", "dist,src=0,dst=1,val=20",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", f"file:{self.console}",
            *boot,
            # cache=none: what the guest has not been told to be written is not in this machine's memory either, and
            # its flushes are real.
            "-drive", f"if=none,id=d0,file={self.disk},format=raw,cache=none",
            "-device", "virtio-blk-pci,drive=d0,romfile=",
            "-drive", f"if=none,id=d1,file={self.folder / 'nvme.raw'},format=raw,cache=none",
            "-device", "nvme,drive=d1,serial=LAB1",
            "-netdev", f"user,id=n0,restrict=on,{','.join(forwards)}",
            "-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    @property
    def console(self) -> Path:
        return self.folder / f"console-{self.boots}.log"

    def cut(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def shut_down(self, seconds: float = 300) -> None:
        assert self._process is not None
        self.ssh("systemctl poweroff", check=False)
        self._process.communicate(timeout=seconds)
        self._process = None

    # -- getting in ---------------------------------------------------------------------------------------------
    def ssh(self, line: str, *, seconds: float = 300, check: bool = True) -> str:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60")
        words: list[str | Path] = ["ssh", "-i", self.key, "-p", str(self.ssh_port)]
        for option in options:
            words += ["-o", option]
        return run(*words, "root@127.0.0.1", line, seconds=seconds, check=check).strip()

    def await_ssh(self) -> None:
        until(lambda: self.ssh("echo there") == "there", BOOT_SECONDS, self.last_words)

    def await_api(self) -> None:
        """Until the daemon says that it is ready, without ssh: it is the last thing to come up."""
        if not self._authority:
            self.await_ssh()
            self._authority = until(lambda: self.ssh("cat /var/lib/carmel/pki/ca.crt"), BOOT_SECONDS, self.last_words)

        def ready() -> bool:
            with self.client() as client:
                client.call("GET", "/readyz", seconds=30)
            return True

        until(ready, BOOT_SECONDS, self.last_words)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        endpoint = HttpsEndpoint("127.0.0.1", self.api_port, ca=self._authority, token=self.token)
        with Client(Context("lab", endpoint)) as client:
            yield client

    def last_words(self) -> str:
        return self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""
