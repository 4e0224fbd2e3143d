from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from carmel.storage.build.cpio import Entry, archive


@dataclass(frozen=True)
class Member:
    path: str
    mode: int
    links: int
    owner: tuple[int, int]
    mtime: int
    device: tuple[int, int]
    data: bytes
    inode: int


def parse(data: bytes) -> list[Member]:
    """A reader of newc, by the format's description and not by our writer."""
    members, position = list[Member](), 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        ino, mode, uid, gid, nlink, mtime, size, _, _, major, minor, name_size, check = fields
        assert check == 0
        start = position + 110
        name = data[start : start + name_size]
        assert name.endswith(b"\0")
        body = -(-(start + name_size) // 4) * 4
        assert not data[start + name_size : body].strip(b"\0")
        position = -(-(body + size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert position == len(data)
            return members
        members.append(
            Member(name[:-1].decode(), mode, nlink, (uid, gid), mtime, (major, minor), data[body : body + size], ino)
        )


def test_golden_bytes() -> None:
    header = b"070701" + b"00000001" + b"000081A4" + b"00000000" * 2 + b"00000001" + b"00000000" + b"00000003"
    header += b"00000000" * 4 + b"00000002" + b"00000000"
    trailer = b"070701" + b"00000000" * 4 + b"00000001" + b"00000000" * 6 + b"0000000B" + b"00000000"
    assert archive([Entry.file("a", b"hi\n")]) == header + b"a\0" + b"hi\n\0" + trailer + b"TRAILER!!!\0" + b"\0" * 3


def test_read_back() -> None:
    data = archive(
        [
            Entry.file("etc/deep/er/file", b"12345"),
            Entry.file("etc/deep-x", b""),
            Entry.symlink("bin/sh", "busybox"),
            Entry.file("bin/busybox", b"\x7fELF", executable=True),
            Entry.character_device("dev/console", 5, 1),
            Entry.directory("tmp", 0o1777),
        ]
    )
    members = {member.path: member for member in parse(data)}
    assert members["etc/deep/er/file"].data == b"12345"
    assert members["bin/sh"].mode == stat.S_IFLNK | 0o777
    assert members["bin/sh"].data == b"busybox"
    assert members["bin/busybox"].mode == stat.S_IFREG | 0o755
    assert members["dev/console"].device == (5, 1)
    assert stat.S_ISCHR(members["dev/console"].mode)
    assert members["tmp"].mode == stat.S_IFDIR | 0o1777
    assert members["etc/deep/er"].mode == stat.S_IFDIR | 0o755
    assert all(member.owner == (0, 0) and member.mtime == 0 for member in members.values())
    assert len({member.inode for member in members.values()}) == len(members)


def test_directories_come_before_what_is_in_them() -> None:
    # "a-b" sorts between "a" and "a/b" as text.
    paths = [member.path for member in parse(archive([Entry.file("a/b/c", b""), Entry.file("a-b/c", b"")]))]
    for path in paths:
        parent = path.rpartition("/")[0]
        assert not parent or paths.index(parent) < paths.index(path)


def test_equal_input_gives_equal_bytes_in_any_order() -> None:
    entries = [Entry.file("b", b"2"), Entry.file("a/x", b"1"), Entry.symlink("c", "b")]
    assert archive(entries) == archive(reversed(entries))


@pytest.mark.parametrize("path", ["/etc/passwd", "../etc", "a/../b", "", "a//b", "a/", "./a"])
def test_refuses_paths_that_are_not_plain(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        archive([Entry.file(path, b"")])


def test_refuses_a_path_that_is_there_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        archive([Entry.file("a", b"1"), Entry.file("a", b"2")])


def test_a_file_is_read_when_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "late"
    entries = [Entry.file("a", place, executable=True), Entry.file("b", b"now")]
    place.write_bytes(b"later")
    assert [member.data for member in parse(archive(entries))] == [b"later", b"now"]
