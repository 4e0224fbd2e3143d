"""A guest with an IOMMU sees each NIC in a group of its own, so that it can give each to another VM of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from carmel.hypervisor.config import DiskConfig, NicConfig
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus
from tests.system.hypervisor.conftest import GUEST_SECONDS, ConfigMaker, House, until_prompt

_NICS = tuple(NicConfig(f"n{index}", f"52:54:00:00:00:0{index}", {"type": "user"}) for index in range(3))
_GROUPS = (
    b"for n in /sys/class/net/e*; do "
    b"echo group $(cat $n/address) $(ls $n/device/../iommu_group/devices) of-$((1+1)); done; "
    b"for d in /sys/bus/pci/devices/*; do grep -q 0x0108 $d/class && "
    b"echo group drive $(ls $d/iommu_group/devices) of-$((1+1)); done; echo all-$((1+1))\n"
)


async def typed(hypervisor: QemuHypervisor, uid: str, words: bytes, end: bytes) -> AsyncIterator[str]:
    """The lines that come back after ``words`` was typed, up to the one that begins with ``end``."""
    stream = await hypervisor.open_console(uid)
    try:
        await stream.write(words)
        rest = b""
        async with asyncio.timeout(GUEST_SECONDS):
            while data := await stream.read():
                *lines, rest = (rest + data).replace(b"\r", b"").split(b"\n")
                for line in lines:
                    if line.startswith(end):
                        return
                    yield line.decode()
    finally:
        await stream.close()
    raise AssertionError(f"the console ended after {rest!r}")


async def test_each_nic_and_each_drive_is_a_group_of_its_own(
    house: House, make_config: ConfigMaker, paths: Paths
) -> None:
    hypervisor = house.hypervisor()
    disks = []
    paths.state.mkdir(exist_ok=True)
    paths.state.chmod(0o711)
    for number in range(2):
        path = paths.state / f"drive{number}"
        path.write_bytes(bytes(1 << 20))
        disks.append(DiskConfig(path.name, DiskBus.NVME, path, "raw", path.name))
    machine = await hypervisor.launch(make_config(nics=_NICS, disks=tuple(disks), iommu=True))
    uid = machine.launch.uid
    await until_prompt(hypervisor, uid)
    said = [line.split() async for line in typed(hypervisor, uid, _GROUPS, b"all-2")]
    told = [words[1:-1] for words in said if words[:1] == ["group"] and words[-1] == "of-2"]
    groups = {words[0]: words[1:] for words in told if words[0] != "drive"}
    await machine.kill("the test is over")
    # Nothing but the NIC and the port that it sits behind, at the NIC's slot.
    assert groups == {nic.mac: [f"0000:00:0{slot}.0", f"0000:0{slot}:00.0"] for slot, nic in enumerate(_NICS, 1)}
    drives = [words[1:] for words in told if words[0] == "drive"]
    # Nor with a drive, whose port this kernel takes for a group of its own.
    assert drives == [["0000:04:00.0"], ["0000:05:00.0"]]
