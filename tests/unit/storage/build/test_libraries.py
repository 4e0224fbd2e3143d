"""Which libraries go into an image with a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.errors import InternalError
from carmel.storage.build.libraries import library_entries
from tests.unit.storage.build.elf_files import program


def test_what_is_needed_through_others_too_and_nothing_else(tmp_path: Path) -> None:
    for name, needed in {
        "usr/lib/liba.so.1.2": ["libb.so.2", "libc.so.6"],
        "lib/libc.so.6": [],
        "lib/other.so": [],
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(program(needed))
    (tmp_path / "usr/lib/liba.so.1").symlink_to("liba.so.1.2")
    (tmp_path / "lib/libb.so.2").write_bytes(program(["liba.so.1"]))
    found = {entry.path: entry for entry in library_entries(tmp_path, [program(["liba.so.1"]), program([])])}
    assert sorted(found) == ["lib/liba.so.1", "lib/libb.so.2", "lib/libc.so.6"]
    assert found["lib/liba.so.1"].data == program(["libb.so.2", "libc.so.6"])
    with pytest.raises(InternalError, match=r"libz\.so\.1"):
        list(library_entries(tmp_path, [program(["libz.so.1"])]))
