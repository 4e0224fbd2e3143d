"""What files claim to be, and what of it is believed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.errors import CarmelError
from carmel.storage.inspect import DiskFormat, inspect_file
from carmel.units import GIB, MIB, TIB

LIMIT = 64 * TIB


def qcow2(
    *,
    version: int = 3,
    backing: bytes = b"",
    cluster_bits: int = 16,
    size: int = GIB,
    crypt: int = 0,
    l1_size: int = 2,
    l1_offset: int = 0x30000,
    reftable_clusters: int = 1,
    snapshots: int = 0,
    incompatible: int = 0,
    header_length: int = 112,
    extensions: bytes = bytes(8),
) -> bytes:
    offset = 1024 if backing else 0
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", version, offset, len(backing), cluster_bits, size, crypt, l1_size, l1_offset, 0x10000,
        reftable_clusters, snapshots, 0, incompatible, 0, 0, 4, header_length,
    )  # fmt: skip
    head = (header.ljust(header_length, b"\0") + extensions).ljust(1024, b"\0") + backing
    return head.ljust(0x40000, b"\0")


def vmdk(
    descriptor: str,
    *,
    capacity: int = 65536,
    grain: int = 128,
    directory: int = 26,
    footer: bytes = b"",
    descriptor_size: int = 20,
) -> bytes:
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, capacity, grain, 1, descriptor_size, 512, 21, directory, 128, 0,
        b"\n \r\n", 0,
    )  # fmt: skip
    return header.ljust(512, b"\0") + descriptor.encode().ljust(20 * 512, b"\0") + bytes(65536) + footer


DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=1
parentCID=ffffffff
createType="monolithicSparse"
RW 65536 SPARSE "a.vmdk"
"""


def code_of(path: Path, data: bytes, limit: int = LIMIT) -> str:
    path.write_bytes(data)
    with pytest.raises(CarmelError) as caught:
        inspect_file(path, limit)
    assert caught.value.message
    return caught.value.code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def test_whole_disks_pass(file: Path) -> None:
    for data, image_format, size in (
        (qcow2(), DiskFormat.QCOW2, GIB),
        (vmdk(DESCRIPTOR), DiskFormat.VMDK, 32 * MIB),
        (bytes(MIB), DiskFormat.RAW, MIB),
    ):
        file.write_bytes(data)
        found = inspect_file(file, LIMIT)
        assert (found.format, found.virtual_size) == (image_format, size)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (qcow2(backing=b"/etc/shadow"), "ImageHasBackingFile"),
        (qcow2(backing=b'json:{"driver":"nbd"}'), "ImageHasBackingFile"),
        (qcow2(incompatible=4), "ImageHasDataFile"),
        (qcow2(extensions=struct.pack(">II", 0x44415441, 8) + b"/etc/xyz" + bytes(8)), "ImageHasDataFile"),
        (qcow2(crypt=1), "ImageEncrypted"),
        (qcow2(extensions=struct.pack(">II", 0x0537BE77, 16) + bytes(24)), "ImageEncrypted"),
        (qcow2(incompatible=2), "ImageDamaged"),
        (qcow2(incompatible=1 << 40), "ImageDamaged"),
        (qcow2(version=4), "ImageDamaged"),
        (qcow2(cluster_bits=63), "ImageDamaged"),
        (qcow2(l1_size=0x7FFFFFFF), "ImageDamaged"),
        (qcow2(l1_size=1 << 20), "ImageDamaged"),
        (qcow2(l1_size=1), "ImageDamaged"),
        (qcow2(reftable_clusters=1 << 20), "ImageDamaged"),
        (qcow2(snapshots=1 << 30), "ImageDamaged"),
        (qcow2(header_length=8), "ImageDamaged"),
        (qcow2(version=0), "ImageDamaged"),
        (qcow2(extensions=struct.pack(">II", 1, 0xFFFFFFF0)), "ImageDamaged"),
        (qcow2(l1_offset=0x4000000), "ImageTruncated"),
        (qcow2()[:60], "ImageTruncated"),
        (qcow2()[:0x20000], "ImageTruncated"),
        (qcow2(size=0, l1_size=0), "ImageDamaged"),
    ],
)
def test_a_qcow2_that_is_not_whole_in_itself_or_not_sane(file: Path, data: bytes, code: str) -> None:
    assert code_of(file, data) == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (vmdk(DESCRIPTOR, capacity=0), "ImageHasExtents"),
        (vmdk(DESCRIPTOR.replace("monolithicSparse", "twoGbMaxExtentSparse")), "ImageHasExtents"),
        (vmdk(DESCRIPTOR + 'RW 2048 FLAT "/etc/shadow" 0\n'), "ImageHasExtents"),
        (vmdk(DESCRIPTOR.replace("SPARSE", "FLAT")), "ImageHasExtents"),
        (vmdk(DESCRIPTOR.replace("ffffffff", "12345678")), "ImageHasExtents"),
        (vmdk(DESCRIPTOR + 'parentFileNameHint="/etc/shadow"\n'), "ImageHasExtents"),
        (b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n', "ImageHasExtents"),
        (b"COWD" + bytes(4096), "ImageHasExtents"),
        (vmdk(DESCRIPTOR, grain=1), "ImageDamaged"),
        (vmdk(DESCRIPTOR, capacity=1 << 60), "ImageDamaged"),
        (vmdk(DESCRIPTOR, descriptor_size=1 << 40), "ImageDamaged"),
        (vmdk(DESCRIPTOR, directory=1 << 40), "ImageTruncated"),
        (vmdk(DESCRIPTOR, directory=0xFFFF_FFFF_FFFF_FFFF), "ImageTruncated"),
        (vmdk(DESCRIPTOR)[:40], "ImageTruncated"),
    ],
)
def test_a_vmdk_that_is_not_whole_in_itself_or_not_sane(file: Path, data: bytes, code: str) -> None:
    assert code_of(file, data) == code


def test_a_footer_that_says_otherwise_than_its_header(file: Path) -> None:
    """QEMU believes the footer."""
    other = vmdk(DESCRIPTOR, capacity=1 << 30)[:512] + bytes(512)
    data = vmdk(DESCRIPTOR, directory=0xFFFF_FFFF_FFFF_FFFF, footer=other)
    assert code_of(file, data) == "ImageDamaged"


def gpt(sectors: int) -> bytes:
    return bytes(512) + b"EFI PART" + bytes(24) + struct.pack("<Q", sectors - 1) + bytes(472)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "UnknownImageFormat"),
        (b"<html>not found</html>", "UnknownImageFormat"),
        (b"\x1f\x8b" + bytes(1022), "UnknownImageFormat"),
        (b"\xfd7zXZ\0" + bytes(1018), "UnknownImageFormat"),
        (bytes(257) + b"ustar" + bytes(762), "UnknownImageFormat"),
        (b"\0" * 4096 + b"conectix" + bytes(504), "UnknownImageFormat"),
        (bytes(1025), "ImageTruncated"),
        (gpt(1 << 20), "ImageTruncated"),
    ],
)
def test_what_is_no_raw_disk(file: Path, data: bytes, code: str) -> None:
    assert code_of(file, data) == code


def test_a_disk_larger_than_fits(file: Path) -> None:
    assert code_of(file, qcow2(size=2 * GIB, l1_size=4), limit=GIB) == "ImageTooLarge"


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        inspect_file(tmp_path / "link", LIMIT)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CarmelError):
        inspect_file(tmp_path / "pipe", LIMIT)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([qcow2(), vmdk(DESCRIPTOR), gpt(4)]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.integers(0, 0x40000),
)
def test_whatever_comes_there_is_an_answer(
    file: Path, start: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(start)
    for position, value in changes:
        data[position : position + len(value)] = value
    file.write_bytes(data[:cut])
    try:
        found = inspect_file(file, GIB)
    except CarmelError:
        return
    assert 0 < found.virtual_size <= GIB
