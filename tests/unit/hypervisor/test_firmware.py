"""Firmware descriptors: order, masks, what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from carmel.hypervisor.firmware import FLASH_BYTES, find_firmware, make_variables


def describe(folder: Path, name: str, code: Path, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor: dict[str, Any] = {
        "interface-types": ["uefi"],
        "mapping": {"device": "flash", "executable": {"filename": str(code), "format": "raw"}},
        "targets": [{"architecture": "aarch64", "machines": ["virt-*"]}],
        "features": ["verbose-static"],
    }
    (folder / name).write_text(json.dumps({**descriptor, **changes}))


def image(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def test_the_first_that_fits_is_taken(tmp_path: Path) -> None:
    usr, etc = tmp_path / "usr", tmp_path / "etc"
    secure, plain, own = (image(tmp_path / name) for name in ("secure", "plain", "own"))
    describe(usr, "40-secure.json", secure, features=["secure-boot"])
    describe(usr, "45-x86.json", secure, targets=[{"architecture": "x86_64", "machines": ["pc-*"]}])
    describe(usr, "60-plain.json", plain)
    found = find_firmware("aarch64", "virt-7.2", [etc, usr])
    assert found is not None
    assert found.code == plain
    describe(etc, "50-own.json", own)
    found = find_firmware("aarch64", "virt-7.2", [etc, usr])
    assert found is not None
    assert found.code == own


def test_an_empty_descriptor_hides_one_of_the_same_name(tmp_path: Path) -> None:
    describe(tmp_path / "usr", "60-plain.json", image(tmp_path / "plain"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/60-plain.json").write_text("")
    assert find_firmware("aarch64", "virt-7.2", [tmp_path / "etc", tmp_path / "usr"]) is None


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("10-a.json", "{"), ("11-b.json", "[]"), ("12-c.json", '{"mapping": 1}'), ("13-d.json", "null")):
        (tmp_path / name).write_text(text)
    describe(tmp_path, "14-gone.json", tmp_path / "gone")
    describe(tmp_path, "60-plain.json", image(tmp_path / "plain"))
    found = find_firmware("aarch64", "virt-7.2", [tmp_path])
    assert found is not None
    assert found.code == tmp_path / "plain"


def test_homebrew_has_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "share/qemu/firmware").mkdir(parents=True)
    code = image(tmp_path / "share/qemu/edk2-aarch64-code.fd")
    found = find_firmware("aarch64", "virt-7.2", [tmp_path / "share/qemu/firmware"])
    assert found is not None
    assert (found.code, found.variables) == (code, None)


def test_variables_have_the_flash_size(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_bytes(b"vars\0\0\0")
    make_variables(template, tmp_path / "nvram")
    data = (tmp_path / "nvram").read_bytes()
    assert len(data) == FLASH_BYTES
    assert data.rstrip(b"\0") == b"vars"
