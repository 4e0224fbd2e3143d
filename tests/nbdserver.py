"""A real NBD server by TLS on loopback, which can be killed and started again at its port."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from carmel.hypervisor.psk import Psk

PSK = Psk("host", "0123456789abcdef" * 4)
_START_SECONDS = 20.0


@dataclass
class NbdServer:
    """``qemu-nbd`` with one export. ``folder`` holds the image, and the server's key."""

    folder: Path
    export: str
    psk: Psk = PSK
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def image(self) -> Path:
        return self.folder / "nbd.raw"

    def start(self) -> None:
        """It answers when this returns."""
        if not self.image.exists():
            with self.image.open("wb") as file:
                file.truncate(32 * 1024**2)
        keys = self.folder / "server-keys"
        keys.mkdir(exist_ok=True)
        (keys / "keys.psk").write_bytes(self.psk.line)
        self.port = self.port or _free_port()
        self.process = subprocess.Popen(
            [
                *("qemu-nbd", "--bind", "127.0.0.1", "--port", str(self.port), "--persistent", "--shared", "4"),
                *("--export-name", self.export, "--format", "raw", "--cache", "none"),
                *("--object", f"tls-creds-psk,id=tls,endpoint=server,dir={keys}", "--tls-creds", "tls"),
                str(self.image),
            ]
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, "qemu-nbd ended"
            assert time.monotonic() < deadline, "qemu-nbd does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
