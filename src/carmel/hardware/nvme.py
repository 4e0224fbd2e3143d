"""NVMe controllers and their namespaces (Linux, drivers/nvme/host/sysfs.c)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from carmel.hardware.blocks import BLOCK, Uses, block_bytes, size_bytes, used_by
from carmel.hardware.model import NvmeController, NvmeNamespace
from carmel.hardware.pci import address_in
from carmel.hardware.sysroot import Sysroot

_CLASS = "sys/class/nvme"
_CONTROLLER = re.compile(r"nvme\d{1,5}", re.ASCII)
_NAMESPACE = re.compile(r"nvme(\d{1,5})(?:c\d{1,5})?n(\d{1,10})", re.ASCII)
"""``nvme0c1n1`` is a path through controller 1 to namespace 1 of subsystem 0, whose device is ``nvme0n1``."""


def read_nvme(root: Sysroot, nodes_of: Mapping[str, int | None]) -> tuple[NvmeController, ...]:
    """``nodes_of``: the NUMA node of each PCI function."""
    names = controller_names(root)
    if not names:
        return ()
    uses = Uses.read(root)
    return tuple(_controller(root, name, nodes_of, uses) for name in names)


def controller_names(root: Sysroot) -> list[str]:
    """By their numbers: ``nvme0``, ``nvme1``."""
    return sorted(filter(_CONTROLLER.fullmatch, root.names(_CLASS)), key=lambda name: int(name[4:]))


def _controller(root: Sysroot, name: str, nodes_of: Mapping[str, int | None], uses: Uses) -> NvmeController:
    folder = f"{_CLASS}/{name}"
    address = address_in(root.real(folder))
    return NvmeController(
        name=name,
        model=root.word(f"{folder}/model") or "",
        serial=root.word(f"{folder}/serial") or "",
        firmware=root.word(f"{folder}/firmware_rev") or "",
        pci_address=address,
        node=nodes_of.get(address) if address else None,
        namespaces=tuple(_namespace(root, one, uses) for one in namespace_names(root, folder)),
    )


def namespace_names(root: Sysroot, folder: str) -> list[str]:
    """The block devices of the controller in ``folder``."""
    matches = [match for match in map(_NAMESPACE.fullmatch, root.names(folder)) if match]
    names = {(int(match[2]), f"nvme{match[1]}n{match[2]}") for match in matches}
    return [name for _, name in sorted(names) if root.exists(f"{BLOCK}/{name}")]


def _namespace(root: Sysroot, name: str, uses: Uses) -> NvmeNamespace:
    return NvmeNamespace(
        name=name,
        size_bytes=size_bytes(root, name),
        block_bytes=block_bytes(root, name),
        used_by=used_by(root, name, uses),
    )
