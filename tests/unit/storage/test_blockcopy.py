"""A raw disk copied onto a device; a file stands for the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.storage.blockcopy import copy_onto
from carmel.units import MIB


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """One that is larger than what is copied onto it, and holds something else."""
    place = tmp_path / "device"
    place.write_bytes(b"old!" * (16 * MIB // 4))
    return place


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 MiB and a bit: data at the beginning, a hole, and data at the end."""
    place = tmp_path / "source"
    with place.open("wb") as file:
        file.write(b"begin" * 100_000)
        file.seek(12 * MIB)
        file.write(b"end")
    return place


def test_data_and_holes_arrive_and_what_is_behind_stays(source: Path, device: Path) -> None:
    told: list[int] = []

    def go_on(done: int) -> bool:
        told.append(done)
        return True

    size = source.stat().st_size
    with source.open("rb") as file:
        assert copy_onto(file, size, device, go_on)
    now = device.read_bytes()
    assert now[:size] == source.read_bytes()
    assert set(now[1 * MIB : 12 * MIB]) == {0}
    assert now[size:] == (b"old!" * (16 * MIB // 4))[size:]
    assert told == sorted(told)
    assert told[-1] == size


def test_it_stops_when_told_so(source: Path, device: Path) -> None:
    with source.open("rb") as file:
        assert not copy_onto(file, source.stat().st_size, device, lambda _done: False)
    assert device.read_bytes()[12 * MIB :] == b"old!" * MIB
