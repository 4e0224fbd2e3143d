"""Every golden command line for TCG is one that the installed QEMU starts."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carmel.hypervisor.abilities import QemuAbilities, find_abilities
from carmel.hypervisor.account import Account
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.directory import listen, write_key
from carmel.hypervisor.firmware import FLASH_BYTES
from carmel.hypervisor.qmp import QmpConnection
from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.storage.build import KernelBundle
from tests.nbdserver import NbdServer
from tests.unit.hypervisor.cases import HERE as UNIT
from tests.unit.hypervisor.cases import NBD_DISK, ROOT, VERSIONS, Case, as_argv, cases

GOLDENS = [case for case in cases() if case.accelerator is Accelerator.TCG]


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="carmel-golden-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def far(place: Path) -> Iterator[NbdServer]:
    """The server of the disk that is far away."""
    server = NbdServer(place, NBD_DISK.export, NBD_DISK.psk)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def furnish(place: Path, bundle: KernelBundle) -> None:
    """Real files where the goldens name /golden."""
    for name in ("state", "run", "images", "firmware"):
        (place / name).mkdir()
    images = place / "images"
    (images / "kernel").symlink_to(bundle.kernel)
    (images / "initrd").symlink_to(bundle.initrd)
    base, root = images / "base.qcow2", images / "root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", root, "64M"], check=True)
    for path, size in (
        (images / "data,ro.raw", 1024**2),
        (images / "cidata.iso", 512 * 1024),
        (place / "firmware/code.fd", FLASH_BYTES),
        (place / "state/nvram.fd", FLASH_BYTES),
    ):
        with path.open("wb") as file:
            file.truncate(size)


def fitting(version: str, qemu: QemuAbilities) -> str:
    """The golden's machine type, or the newest one that the installed QEMU knows."""
    return f"virt-{version}" if f"virt-{version}" in qemu.machine_types else architecture("aarch64").machine_type(qemu)


@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case.name)
async def test_golden_starts(
    case: Case, place: Path, bundle: KernelBundle, paths: Paths, request: pytest.FixtureRequest
) -> None:
    qemu = await find_abilities("aarch64", paths, SystemRunner())
    assert case.version in VERSIONS
    furnish(place, bundle)
    text = (UNIT / "golden" / f"{case.name}.txt").read_text()
    text = text.replace(f"virt-{case.version},", f"{fitting(case.version, qemu)},").replace(f"{ROOT}/", f"{place}/")
    # Not every machine has a second node.
    text = re.sub(r'"host-nodes":\[\d\]', '"host-nodes":[0]', text)
    if "hugepages" in case.shape:
        request.getfixturevalue("huge_pages")
    if case.shape == "nbd":
        far: NbdServer = request.getfixturevalue("far")
        text = text.replace(f'"{NBD_DISK.host}","port":"{NBD_DISK.port}"', f'"127.0.0.1","port":"{far.port}"')
        write_key(place / "run/disk2-tls", NBD_DISK.psk, Account())
    with ExitStack() as stack:
        sockets: dict[str, socket.socket] = {}
        for number, name in (("101", "qmp"), ("102", "serial"), ("103", "agent")):
            sockets[number] = stack.enter_context(listen(place / "run" / name))
        text = re.sub(r"fd=(\d+)", lambda match: f"fd={sockets[match[1]].fileno()}", text)
        process = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for here
            [*as_argv(text), "-S"],
            stderr=subprocess.PIPE,
            pass_fds=[each.fileno() for each in sockets.values()],
        )
    qmp = QmpConnection("golden", lambda _event: None, lambda: None)
    try:
        await qmp.connect(place / "run/qmp", seconds=30)
        status = await qmp.execute("query-status")
        assert status["status"] == "prelaunch"
        assert (await qmp.execute("query-name"))["name"] == "default/web,spawn=allow/0123abcd"
        disks = {block["qdev"]: block for block in await qmp.execute("query-block") if block.get("inserted")}
        assert len(disks) >= 3
        assert len(await qmp.execute("query-cpus-fast")) == case.config.cpu.count
        assert (await qmp.execute("query-memory-size-summary"))["base-memory"] == case.config.memory_bytes
        await qmp.execute("quit")
        process.wait(10)
    finally:
        process.kill()
        said = process.communicate()[1]
        await qmp.close()
    assert process.returncode == 0, said
