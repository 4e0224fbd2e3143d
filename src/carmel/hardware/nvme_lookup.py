"""One namespace among those there are: by its controller's serial number, or of one controller."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.hardware.blocks import BLOCK, Uses, block_bytes, claims, size_bytes
from carmel.hardware.nvme import controller_names, namespace_names
from carmel.hardware.sysroot import Sysroot

_CLASS = "sys/class/nvme"


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace as a block device. ``claims``: who has it open (``mounted at /srv``); ``mounted_at`` where it, as a
    whole, is mounted."""

    name: str
    size_bytes: int
    block_bytes: int
    claims: tuple[str, ...] = ()
    mounted_at: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"


def spaces_with_serial(root: Sysroot, serial: str, namespace_id: int) -> tuple[Space, ...]:
    """Of drives on PCIe. More than one: serial numbers that are not."""
    names = (
        name
        for name in controller_names(root)
        if root.text(f"{_CLASS}/{name}/transport") in {"pcie", None} and root.text(f"{_CLASS}/{name}/serial") == serial
    )
    found = {space.name: space for name in names if (space := space_of(root, name, namespace_id)) is not None}
    return tuple(found.values())


def space_of(root: Sysroot, controller: str, namespace_id: int) -> Space | None:
    """``controller`` is the kernel's name of it (``nvme0``). ``None``: it is not there, or not there yet."""
    for name in namespace_names(root, f"{_CLASS}/{controller}"):
        if root.number(f"{BLOCK}/{name}/nsid") == namespace_id:
            uses = Uses.read(root)
            number = root.text(f"{BLOCK}/{name}/dev") or name
            return Space(
                name,
                size_bytes(root, name),
                block_bytes(root, name),
                claims(root, name, uses),
                tuple(dict.fromkeys([*uses.mounts.get(number, ()), *uses.mounts.get(name, ())])),
            )
    return None
