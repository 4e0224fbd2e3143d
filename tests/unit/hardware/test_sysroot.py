"""Files below a root: limits, links, and what is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.hardware.sysroot import MOST_REMARKS, Sysroot, parse_number, printable


def test_links_stay_below_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    (root / "sys").mkdir(parents=True)
    secret.write_text("of another machine")
    (root / "sys/out").symlink_to(secret)
    (root / "sys/up").symlink_to("../../secret")
    (root / "sys/folder").symlink_to(tmp_path)
    files = Sysroot(root)
    assert [files.text(f"sys/{name}") for name in ("out", "up", "folder/secret")] == [None, None, None]
    assert files.names("sys/folder") == ()


def test_absolute_and_relative_links_mean_the_recordings_own_files(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/nvme0").mkdir(parents=True)
    (tmp_path / "sys/devices/nvme0/model").write_text("drive\n")
    (tmp_path / "sys/class").mkdir()
    (tmp_path / "sys/class/absolute").symlink_to("/sys/devices/nvme0")
    (tmp_path / "sys/class/relative").symlink_to("../devices/nvme0")
    (tmp_path / "sys/class/file").symlink_to("absolute/model")
    files = Sysroot(tmp_path)
    assert {files.text(f"sys/class/{path}") for path in ("absolute/model", "relative/model", "file")} == {"drive"}
    assert files.names("sys/class/absolute") == ("model",)
    assert files.real("sys/class/file") == "sys/devices/nvme0/model"
    assert files.link("sys/class/relative") == "nvme0"


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "deep").symlink_to("deep/deep")
    files = Sysroot(tmp_path)
    assert [files.text(path) for path in ("a", "deep", "a/x/y")] == [None, None, None]
    assert files.names("b") == ()
    assert "/a is a circle of links: nothing was read there." in files.remarks


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    files = Sysroot(tmp_path)
    assert [files.text(path) for path in ("fifo", "folder", "missing", "missing/too", "fifo/x")] == [None] * 5


def test_a_read_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "endless").write_bytes(b"x" * 100_000)
    files = Sysroot(tmp_path)
    assert len(files.data("endless") or b"") == 4096
    assert len(files.data("endless", 50_000) or b"") == 50_000
    assert len(files.word("endless") or "") == 256


def test_what_cannot_be_opened_is_missing(tmp_path: Path) -> None:
    files = Sysroot(tmp_path)
    assert files.text("a" * 300) is None
    assert files.text("nul\0byte") is None
    assert files.names("nul\0byte") == ()
    assert not files.exists("nul\0byte")
    assert files.real("nul\0byte") is None
    assert files.link("nul\0byte") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12\n", 12),
        ("-1", -1),
        ("0x8086", 0x8086),
        ("0X1f", 31),
        ("008", 8),
        ("", None),
        ("12 kB", None),
        ("0x", None),
        ("1e3", None),
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64), None),
        ("9" * 4000, None),
        ("-" + "9" * 30, None),
    ],
)
def test_numbers(text: str, number: int | None) -> None:
    assert parse_number(text) == number


def test_nonsense_is_remarked_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "core_id").write_bytes(b"\xff\xfe\x1b[31mfour\n")
    (tmp_path / "cpulist").write_text("0-\n")
    files = Sysroot(tmp_path)
    assert files.number("core_id") is None
    assert files.numbers("cpulist") is None
    assert len(files.remarks) == 2
    assert files.remarks[0].startswith("/core_id says ")
    assert files.remarks[1].startswith("/cpulist is no list of numbers: '0-'")
    assert all(remark.isprintable() for remark in files.remarks)


def test_remarks_are_few_short_and_said_once(tmp_path: Path) -> None:
    files = Sysroot(tmp_path)
    for number in range(2000):
        files.remark(f"Odd: {number}.")
        files.remark("Odd: 0.")
    files.remark("x" * 5000)
    assert len(files.remarks) == MOST_REMARKS + 1
    assert files.remarks[-1] == f"{2001 - MOST_REMARKS} more remarks of this sort were left out."
    other = Sysroot(tmp_path)
    other.remark("x" * 5000)
    assert len(other.remarks[0]) == 600


@given(st.text())
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 256
    assert shown == shown.strip()
    assert printable(shown) == shown
