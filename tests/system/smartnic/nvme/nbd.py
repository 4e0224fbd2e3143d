"""A client of NBD exports: qemu-io and qemu-img, by TLS with a key that both have."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from carmel.hypervisor.psk import Psk


def tell(client: subprocess.Popen[str], *commands: str) -> None:
    assert client.stdin is not None
    client.stdin.write("".join(f"{command}\n" for command in commands))
    client.stdin.flush()


def hear(client: subprocess.Popen[str], words: str) -> None:
    """Reads until ``words`` come."""
    assert client.stdout is not None
    heard = []
    for line in client.stdout:
        heard.append(line)
        if words in line:
            return
    raise AssertionError(f"{words!r} never came, only {heard}")


@dataclass(frozen=True, slots=True)
class Client:
    """``stall_seconds``: how long a request waits for a server that is away."""

    folder: Path
    port: int
    psk: Psk
    stall_seconds: int = 60

    def io(self, export: str, *commands: str) -> subprocess.CompletedProcess[str]:
        """Runs qemu-io's commands one after the other, to the end."""
        return subprocess.run(
            self.words("qemu-io", export, commands), capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, export: str) -> subprocess.Popen[str]:
        """A connected client that reads its commands, one a line."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.words("qemu-io", export, ()), stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def words(self, program: str, export: str, commands: tuple[str, ...]) -> list[str]:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "keys.psk").write_bytes(self.psk.line)
        server = f"server.type=inet,server.host=127.0.0.1,server.port={self.port}"
        return [
            program,
            "--object",
            f"tls-creds-psk,id=tls,endpoint=client,dir={self.folder},username={self.psk.username}",
            "--image-opts",
            f"driver=nbd,{server},export={export},tls-creds=tls,reconnect-delay={self.stall_seconds}",
            *(word for command in commands for word in ("-c", command)),
        ]
