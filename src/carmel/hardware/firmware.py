"""Firmware and board: what SMBIOS and the device tree call the machine."""

from __future__ import annotations

from carmel.hardware import devicetree
from carmel.hardware.model import Board, Firmware, FirmwareInterface
from carmel.hardware.sysroot import Sysroot

_DMI = "sys/class/dmi/id"
_WORDS = (
    *("sys_vendor", "product_name", "product_version", "product_serial", "product_uuid", "product_sku"),
    *("product_family", "board_vendor", "board_name", "board_version", "board_serial", "board_asset_tag"),
    *("chassis_vendor", "chassis_type", "chassis_version", "chassis_serial", "chassis_asset_tag"),
    *("bios_vendor", "bios_version", "bios_date", "bios_release"),
)
"""Linux, Documentation/ABI/testing/sysfs-class-dmi... (drivers/firmware/dmi-id.c): SMBIOS 3.7, types 0 to 3. Serial
numbers and the UUID are root's to read."""
_EMPTY = {
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "system product name",
    "system manufacturer",
    "n/a",
}
"""What firmware says that nobody has filled in."""
_MOST_MOUNTS = 1 << 20


def read_dmi(root: Sysroot) -> dict[str, str]:
    """SMBIOS's words by the kernel's names for them, as they are; absent ones are absent."""
    if not root.exists(_DMI):
        return {}
    found = ((name, root.word(f"{_DMI}/{name}")) for name in _WORDS)
    return {name: word for name, word in found if word is not None}


def read_firmware(root: Sysroot, dmi: dict[str, str]) -> Firmware:
    tree = devicetree.base(root)
    boot_loader = root.word(f"{tree}/chosen/u-boot,version") if tree else None
    return Firmware(
        vendor=dmi.get("bios_vendor") or ("U-Boot" if boot_loader else None),
        version=dmi.get("bios_version") or boot_loader,
        date=dmi.get("bios_date"),
        uefi=root.exists("sys/firmware/efi") or " efivarfs " in (root.text("proc/mounts", _MOST_MOUNTS) or ""),
        interface=_interface(root, tree),
    )


def _interface(root: Sysroot, tree: str | None) -> FirmwareInterface | None:
    """An Arm kernel that ACPI describes has a device tree too, with nothing but ``chosen`` in it
    (drivers/firmware/efi/libstub/fdt.c)."""
    if root.names("sys/firmware/acpi/tables"):
        return FirmwareInterface.ACPI
    return FirmwareInterface.DEVICE_TREE if tree and root.exists(f"{tree}/compatible") else None


def read_board(root: Sysroot, dmi: dict[str, str]) -> Board:
    """The device tree's model where there is one: single boards' SMBIOS, if any, is their firmware's invention."""
    tree = devicetree.base(root)
    compatible = devicetree.strings(root, f"{tree}/compatible") if tree else ()
    model = next(iter(devicetree.strings(root, f"{tree}/model")), None) if tree else None
    return Board(
        vendor=_filled(dmi, "sys_vendor") or _filled(dmi, "board_vendor"),
        product=model or _filled(dmi, "product_name") or _filled(dmi, "board_name"),
        compatible=compatible,
        dmi=dmi,
    )


def board_name(board: Board) -> str | None:
    """For people. A device tree's model begins with its maker."""
    words = (board.product,) if board.compatible else (board.vendor, board.product)
    return " ".join(word for word in words if word) or None


def _filled(dmi: dict[str, str], name: str) -> str | None:
    word = dmi.get(name)
    return None if word is None or word.lower() in _EMPTY else word
