"""UEFI firmware: found by QEMU's firmware descriptors, or where Homebrew's QEMU brings it.

The descriptors are JSON files, described in QEMU's docs/interop/firmware.json: the name's number is the priority, a
file in /etc hides one of the same name in /usr/share, an empty one hides it for good.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLASH_BYTES = 64 * 1024 * 1024
"""The size of each of the ``virt`` machine's two flash devices (hw/arm/virt.c, VIRT_FLASH)."""

_LARGEST_DESCRIPTOR = 64 * 1024
# Secure Boot needs variables that the guest's kernel cannot write, which no Arm machine of QEMU has.
_UNWANTED_FEATURES = frozenset({"secure-boot", "enrolled-keys", "requires-smm"})


@dataclass(frozen=True, slots=True)
class FirmwareFiles:
    """Raw images: ``code`` is only read; ``variables`` is the template of a VM's own file, ``None``: start empty."""

    code: Path
    variables: Path | None


def descriptor_directories(prefixes: Sequence[Path] = (Path("/usr"), Path("/opt/homebrew"))) -> list[Path]:
    """Where descriptors lie, the most specific first."""
    return [Path("/etc/qemu/firmware"), *(prefix / "share/qemu/firmware" for prefix in prefixes)]


def find_firmware(target: str, machine_type: str, directories: Iterable[Path] | None = None) -> FirmwareFiles | None:
    """The first plain UEFI for this machine type. Unreadable descriptors are passed over."""
    folders = list(descriptor_directories() if directories is None else directories)
    by_name: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob("*.json"):
            by_name.setdefault(path.name, path)
    for _name, path in sorted(by_name.items()):
        found = _described(path, target, machine_type)
        if found is not None:
            return found
    return _homebrew(target, folders)


def _described(path: Path, target: str, machine_type: str) -> FirmwareFiles | None:
    try:
        if not 0 < path.stat().st_size <= _LARGEST_DESCRIPTOR:
            return None
        descriptor = json.loads(path.read_bytes())
        if not _fits(descriptor, target, machine_type):
            return None
        executable = descriptor["mapping"]["executable"]
        template = descriptor["mapping"].get("nvram-template")
        files = FirmwareFiles(Path(executable["filename"]), Path(template["filename"]) if template else None)
        raw = executable["format"] == "raw" and (template is None or template["format"] == "raw")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    there = files.code.is_file() and (files.variables is None or files.variables.is_file())
    return files if raw and there else None


def _fits(descriptor: dict[str, Any], target: str, machine_type: str) -> bool:
    return (
        "uefi" in descriptor["interface-types"]
        and descriptor["mapping"]["device"] == "flash"
        and not _UNWANTED_FEATURES & set(descriptor["features"])
        and any(
            entry["architecture"] == target
            and any(fnmatch.fnmatchcase(machine_type, pattern) for pattern in entry["machines"])
            for entry in descriptor["targets"]
        )
    )


def _homebrew(target: str, folders: Iterable[Path]) -> FirmwareFiles | None:
    """QEMU's own copy lies beside the descriptors' folder; edk2 fills an empty variable store by itself."""
    for folder in folders:
        code = folder.parent / f"edk2-{target}-code.fd"
        if code.is_file():
            return FirmwareFiles(code, None)
    return None


def make_variables(template: Path | None, destination: Path) -> None:
    """A VM's own variable store, of the flash's full size; unused space takes none on disk."""
    part = destination.with_name(destination.name + ".part")
    with part.open("wb") as file:
        if template is not None:
            data = template.read_bytes()
            # Debian's template is already padded: leave its zeros out.
            file.write(data.rstrip(b"\0"))
        file.truncate(FLASH_BYTES)
    part.chmod(0o600)
    part.rename(destination)
