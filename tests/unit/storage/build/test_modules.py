from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from carmel.errors import InternalError, NotFound
from carmel.run import Command, SystemRunner
from carmel.storage.build.elf import needed_libraries, section
from carmel.storage.build.modules import ModuleTree, parse_wanted
from tests.unit.storage.build.elf_files import elf, module, program


def write(directory: Path, name: str, data: bytes) -> None:
    path = directory / "kernel/drivers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def order(directory: Path, *names: str, optional: tuple[str, ...] = ()) -> list[str]:
    modules = await ModuleTree(directory, SystemRunner()).load_order(names, optional=optional)
    return [found.name for found in modules]


async def test_each_module_comes_behind_what_it_needs(tmp_path: Path) -> None:
    write(tmp_path, "virtio-net.ko", module(depends="virtio,net_failover"))
    write(tmp_path, "net_failover.ko", module(depends="failover"))
    write(tmp_path, "failover.ko", module(depends=""))
    write(tmp_path, "virtio.ko", module(depends="virtio_ring"))
    write(tmp_path, "virtio_ring.ko", module(depends=""))
    write(tmp_path, "unwanted.ko", module(depends=""))
    assert await order(tmp_path, "virtio_net") == ["virtio_ring", "virtio", "failover", "net_failover", "virtio_net"]


async def test_soft_dependencies_are_taken_where_they_are(tmp_path: Path) -> None:
    write(tmp_path, "ext4.ko", module(depends="", softdep="pre: crc32c absent post: later"))
    write(tmp_path, "crc32c.ko", module())
    write(tmp_path, "later.ko", module(depends="ext4"))
    assert await order(tmp_path, "ext4") == ["crc32c", "ext4", "later"]


async def test_what_is_built_in_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.ko", module(depends="nvme_core"))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/nvme/nvme-core.ko\n")
    assert await order(tmp_path, "nvme-core", "a") == ["a"]


async def test_optional_and_missing(tmp_path: Path) -> None:
    write(tmp_path, "a.ko", module())
    assert await order(tmp_path, "a", optional=("gone",)) == ["a"]
    with pytest.raises(NotFound, match="gone"):
        await order(tmp_path, "gone")


async def test_a_circle_of_soft_dependencies_ends(tmp_path: Path) -> None:
    write(tmp_path, "a.ko", module(softdep="pre: b"))
    write(tmp_path, "b.ko", module(softdep="pre: a"))
    assert sorted(await order(tmp_path, "a")) == ["a", "b"]


async def test_compressed_modules_are_taken_unpacked(tmp_path: Path) -> None:
    plain = module(depends="b")
    write(tmp_path, "a.ko.xz", lzma.compress(plain))
    zstd = await SystemRunner().run(Command(["zstd", "-qc"], stdin=module()))
    write(tmp_path, "b.ko.zst", zstd.stdout)
    found = await ModuleTree(tmp_path, SystemRunner()).load_order(["a"])
    assert [(one.file_name, one.data) for one in found] == [("b.ko", module()), ("a.ko", plain)]


def test_soft_dependencies_are_split() -> None:
    wanted = parse_wanted(module(depends="x-y,z", softdep="pre: p-1 p2 post: q"))
    assert wanted.before == ("x_y", "z")
    assert wanted.softly_before == ("p_1", "p2")
    assert wanted.softly_after == ("q",)


def test_libraries_and_sections() -> None:
    assert needed_libraries(program(["libc.so.6", "libm.so.6"])) == ["libc.so.6", "libm.so.6"]
    assert section(elf({".note": b"n"}), b".absent") == b""


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", program(["a"])[:80], b"\x7fELF\x02\x01" + b"\xff" * 100])
def test_damaged_files_are_told_apart_from_bugs(data: bytes) -> None:
    with pytest.raises(InternalError):
        section(data, b".modinfo")
