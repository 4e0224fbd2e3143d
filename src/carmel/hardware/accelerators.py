"""GPUs and other engines: PCI functions by their class, and those of a system on chip by the device tree."""

from __future__ import annotations

import re
from collections.abc import Iterator

from carmel.hardware import devicetree
from carmel.hardware.model import Accelerator, PciDevice
from carmel.hardware.sysroot import Sysroot

_DISPLAY, _ENCRYPTION, _PROCESSING = 0x03, 0x10, 0x12
_COPROCESSOR = 0x0B40
"""PCI Code and ID Assignment Specification 1.16, 1.3 (base classes)."""

_VENDORS = {
    0x1002: "AMD",
    0x10DE: "NVIDIA",
    0x13B5: "Arm",
    0x15B3: "Mellanox",
    0x177D: "Cavium",
    0x19E5: "HiSilicon",
    0x1A03: "ASPEED",
    0x1AF4: "virtio",
    0x1B36: "QEMU",
    0x8086: "Intel",
}
_SCREENS_ONLY = {0x102B, 0x1234, 0x1A03, 0x1AF4, 0x1B36, 0x15AD}
"""Vendors whose display functions draw a console and compute nothing: Matrox and ASPEED (management controllers),
and the virtual ones of QEMU and VMware."""
_HIBMC = (0x19E5, 0x1711)
"""The management controller's screen in Kunpeng servers (Linux, drivers/gpu/drm/hisilicon/hibmc)."""

_COMPATIBLE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.ASCII), kind)
    for pattern, kind in (
        # Linux, Documentation/devicetree/bindings/gpu/: nvidia,gk20a.txt, brcm,bcm-v3d.yaml, arm,mali-*.yaml
        (r"nvidia,g[a-z]\d\d[ab]", "GPU"),
        (r"brcm,(bcm)?\d{4}-v3d", "GPU"),
        (r"arm,mali-.+|img,img-.+|vivante,gc|qcom,adreno(-.+)?|apple,agx-.+", "GPU"),
        # bindings/display/tegra/: nvidia,tegra124-vic.yaml, -nvdec.yaml, -nvenc.yaml, -nvjpg.yaml
        (r"nvidia,tegra\d+-(nvdec|nvenc|nvjpg|vic)", "video"),
        # NVIDIA's own kernel for Jetson: nvdla and pva, which the mainline does not drive
        (r"nvidia,tegra\d+-(nvdla|dla)", "NPU"),
        (r"nvidia,tegra\d+-pva(-.+)?", "vision"),
        (r"arm,ethos-.+|rockchip,.+-rknn(-core)?", "NPU"),
        # the security engine: bindings/crypto/ of nvidia,tegra234-se-aes and -hash
        (r"nvidia,tegra\d+-se(-.+)?", "crypto"),
    )
)


def read_accelerators(root: Sysroot, pci: tuple[PciDevice, ...]) -> tuple[Accelerator, ...]:
    tree = devicetree.base(root)
    return (*_of_pci(pci), *(_of_tree(root, tree) if tree else ()))


def _of_pci(pci: tuple[PciDevice, ...]) -> Iterator[Accelerator]:
    for function in pci:
        kind = _kind(function)
        if kind is not None:
            ids = f"{function.vendor:04x}:{function.device:04x}"
            vendor = _VENDORS.get(function.vendor)
            yield Accelerator(
                kind=kind,
                name=f"{vendor} {ids}" if vendor else ids,
                source=function.address,
                driver=function.driver,
                node=function.node,
            )


def _kind(function: PciDevice) -> str | None:
    base = function.class_code >> 16
    if base == _DISPLAY:
        plain = function.vendor in _SCREENS_ONLY or (function.vendor, function.device) == _HIBMC
        return "display" if plain else "GPU"
    if base == _ENCRYPTION:
        return "crypto"
    return "accelerator" if base == _PROCESSING or function.class_code >> 8 == _COPROCESSOR else None


def _of_tree(root: Sysroot, tree: str) -> Iterator[Accelerator]:
    devices: dict[str, str] | None = None
    for node in devicetree.mapped_nodes(root, tree):
        compatible = devicetree.strings(root, f"{node}/compatible")
        found = next(((kind, name) for name in compatible if (kind := _engine(name))), None)
        if found is None or root.text(f"{node}/status") not in {None, "ok", "okay"}:
            continue
        if devices is None:
            devices = _platform_devices(root)
        device = devices.get(root.real(node) or "")
        yield Accelerator(
            kind=found[0],
            name=found[1],
            source=node[len(tree) :],
            driver=root.link(f"{device}/driver") if device else None,
        )


def _engine(compatible: str) -> str | None:
    return next((kind for pattern, kind in _COMPATIBLE if pattern.fullmatch(compatible)), None)


def _platform_devices(root: Sysroot) -> dict[str, str]:
    """Folders of platform devices by their node in the tree."""
    folder = "sys/bus/platform/devices"
    links = ((root.real(f"{folder}/{name}/of_node"), f"{folder}/{name}") for name in root.names(folder))
    return {node: device for node, device in links if node is not None}
