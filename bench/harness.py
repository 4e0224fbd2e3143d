"""What the measurements share: a daemon of their own in temporary folders, HTTP to it, medians, and a table."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GROUP = "/apis/carmel.dev/v1alpha1"
VMS = f"{GROUP}/namespaces/default/virtualmachines"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, one connection kept open."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


@dataclass
class Api:
    """A server of the Kubernetes API, ours or another."""

    connect: Callable[[], http.client.HTTPConnection]
    headers: dict[str, str] = field(default_factory=dict)
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = self.connect()

    def again(self) -> Api:
        """The same server on a connection of its own."""
        return Api(self.connect, self.headers)

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self.raw(method, path, data, content_type))

    def raw(self, method: str, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        headers = {**self.headers, **({"Content-Type": content_type} if data is not None else {})}
        self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300].decode(errors='replace')}")
        return content


@dataclass
class Daemon:
    """One ``carmeld`` of this checkout."""

    process: subprocess.Popen[bytes]
    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "api.sock"

    def api(self) -> Api:
        return Api(lambda: UnixConnection(self.socket))

    def memory_mib(self) -> tuple[float, float]:
        """RSS and PSS."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        values = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        return values["Rss"] / 1024, values["Pss"] / 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def daemon() -> Iterator[Daemon]:
    """A daemon that is ready; at the end its VMs are gone and it too."""
    root = Path(tempfile.mkdtemp(prefix="carmel-bench-"))
    root.chmod(0o755)
    cache = os.environ.get("CARMEL_CACHE_DIR") or str(Path(tempfile.gettempdir()) / f"carmel-bench-cache-{os.getuid()}")
    environment = {
        **os.environ,
        "CARMEL_STATE_DIR": str(root / "state"),
        "CARMEL_RUN_DIR": str(root / "run"),
        "CARMEL_CACHE_DIR": cache,
    }
    with (root / "carmeld.log").open("wb") as log:
        process = subprocess.Popen([Path(sys.executable).with_name("carmeld")], env=environment, stdout=log, stderr=log)
    running = Daemon(process, root / "state", root / "run")
    try:
        _until(lambda: _healthy(running), 60, f"carmeld, see {root / 'carmeld.log'}")
        yield running
        remove_all_vms(running.api())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _healthy(running: Daemon) -> bool:
    if running.process.poll() is not None:
        raise RuntimeError(f"carmeld ended with status {running.process.returncode}")
    try:
        running.api().raw("GET", "/readyz")
    except (OSError, RuntimeError, http.client.HTTPException):
        return False
    return True


def _until(ready: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.005)


def wait_for(api: Api, path: str, condition: Any, seconds: float = 120) -> Any:
    """The object at ``path`` once ``condition`` holds for it."""
    found: list[Any] = []

    def ready() -> bool:
        found[:] = [api.call("GET", path)]
        return bool(condition(found[0]))

    _until(ready, seconds, path)
    return found[0]


def remove_all_vms(api: Api) -> None:
    for vm in api.call("GET", VMS)["items"]:
        patch = {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}}
        api.call("PATCH", f"{VMS}/{vm['metadata']['name']}", patch, "application/merge-patch+json")
    api.raw("DELETE", VMS)
    _until(lambda: not api.call("GET", VMS)["items"], 120, "the VMs to be gone")


def make_micro_image(api: Api) -> None:
    """The kernel image that the guests of the measurements start from."""
    images = f"{GROUP}/namespaces/default/images"
    image = {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "Image",
        "metadata": {"name": "micro"},
        "spec": {"source": {"build": {"recipe": "micro"}}},
    }
    api.call("POST", images, image)
    wait_for(api, f"{images}/micro", lambda one: one.get("status", {}).get("phase") == "Ready", 300)


def micro_vm(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "memory": {"size": "256Mi"},
            "firmware": {"type": "DirectKernel", "imageRef": {"name": "micro"}},
            "restartPolicy": "Never",
            **spec,
        },
    }


def milliseconds(values: Sequence[float]) -> str:
    """Median with the range, of seconds."""
    low, high = min(values) * 1000, max(values) * 1000
    return f"{statistics.median(values) * 1000:.1f} ms ({low:.1f} to {high:.1f}, n={len(values)})"


def table(title: str, rows: Sequence[tuple[str, ...]], head: Sequence[str]) -> str:
    """A Markdown section."""
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def machine() -> str:
    """What this was measured on, without its name."""
    qemu = subprocess.run(["qemu-system-aarch64", "--version"], capture_output=True, text=True, check=True).stdout
    version = qemu.split("version ")[1].split()[0]
    kernel = platform.release().split("-")[0]
    cpus = f"{os.cpu_count()} {platform.machine()} cores"
    return f"{cpus}, Linux {kernel}, QEMU {version}, Python {platform.python_version()}"


def privileges() -> str:
    """What is to be known of figures for which others were made to wait; empty if nobody was."""
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        return ""
    mine, all_ = len(os.sched_getaffinity(0)), os.cpu_count()
    where = f", on {mine} of {all_} cores" if mine != all_ else ""
    return f"With real-time priority (`chrt --rr 1`){where}, as the machine was busy with other work.\n"
