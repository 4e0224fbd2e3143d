"""NVMe namespaces as datastores: what is mounted, what is made anew, and what is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.errors import CarmelError
from carmel.storage.drive import LABEL, Drives, content_of
from tests.fakes.drives import SIZE, FakeDrives
from tests.unit.hardware.machines import Tree


@pytest.fixture
def fake(tmp_path: Path) -> FakeDrives:
    return FakeDrives(Tree(tmp_path / "root"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "datastores").mkdir()
    return tmp_path / "datastores" / "fast"


def drives(fake: FakeDrives) -> Drives:
    return Drives(fake, fake.tree.root)


def make(folder: Path) -> None:
    folder.mkdir(parents=True)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def code_of(fake: FakeDrives, place: Path, serial: str = "S1") -> str:
    with pytest.raises(CarmelError) as raised:
        await drives(fake).mount(serial, 1, place)
    return raised.value.code


async def test_an_empty_drive_is_given_a_file_system_once(fake: FakeDrives, place: Path) -> None:
    device = fake.add("nvme0", "S1")
    space = await drives(fake).mount("S1", 1, place)
    assert (space.device, space.size_bytes) == ("/dev/nvme0n1", SIZE)
    assert fake.mounted_at(device) == str(place)
    await drives(fake).mount("S1", 1, place)
    assert fake.calls == ["mke2fs", "mount"]
    fake.power_cut()
    await drives(fake).mount("S1", 1, place)
    assert fake.calls == ["mke2fs", "mount", "e2fsck", "mount"]


async def test_what_was_put_there_by_others_is_never_touched(fake: FakeDrives, place: Path) -> None:
    for number, content in enumerate((b"\xeb\x58\x90mkfs.fat", b"\0" * 4096 + b"x", b"\0" * 1080 + b"\x53\xef")):
        device = fake.add(f"nvme{number}", f"S{number}", content=content)
        before = device.read_bytes()
        assert await code_of(fake, place, f"S{number}") == "DriveNotEmpty"
        assert device.read_bytes() == before
    with fake.add("nvme8", "S8").open("r+b") as file:
        # A backup of a partition table lies at the very end.
        file.seek(SIZE - 512)
        file.write(b"EFI PART")
    assert await code_of(fake, place, "S8") == "DriveNotEmpty"
    assert fake.calls == []


async def test_a_power_cut_while_the_file_system_is_made(fake: FakeDrives, place: Path) -> None:
    device = fake.add("nvme0", "S1")
    other = fake.add("nvme1", "S2")
    fake.die_in = "mke2fs"
    with pytest.raises(KeyboardInterrupt):
        await drives(fake).mount("S1", 1, place)
    # Half of it is there.
    for one in (device, other):
        with one.open("r+b") as file:
            file.write(b"half")
    fake.die_in = None
    assert await code_of(fake, place, "S2") == "DriveNotEmpty"
    await drives(fake).mount("S1", 1, place)
    assert fake.mounted_at(device) == str(place)
    assert names_in(place.parent) == ["fast"]


async def test_a_drive_that_something_has_is_refused(fake: FakeDrives, place: Path) -> None:
    device = fake.add("nvme0", "S1")
    fake.mount_elsewhere(device, "/srv")
    assert await code_of(fake, place) == "DriveInUse"
    fake.power_cut()
    fake.tree.link("sys/class/block/nvme0n1/holders/dm-0", "../../dm-0")
    fake.tree.write("sys/class/block/dm-0/dm/uuid", "LVM-abc\n")
    assert await code_of(fake, place) == "DriveInUse"
    assert fake.calls == []


async def test_a_drive_that_is_not_there_or_twice(fake: FakeDrives, place: Path) -> None:
    assert await code_of(fake, place) == "DriveMissing"
    fake.add("nvme0", "S1", namespace_id=2)
    assert await code_of(fake, place) == "DriveMissing"
    fake.add("nvme1", "S1")
    fake.add("nvme2", "S1")
    assert await code_of(fake, place) == "DriveMissing"


async def test_nothing_is_hidden_by_mounting_over_it(fake: FakeDrives, place: Path) -> None:
    device = fake.add("nvme0", "S1")
    make(place / "volumes")
    assert await code_of(fake, place) == "PlaceNotEmpty"
    assert fake.mounted_at(device) is None


async def test_what_cannot_be_mended_is_not_mounted(fake: FakeDrives, place: Path) -> None:
    fake.add("nvme0", "S1")
    await drives(fake).mount("S1", 1, place)
    fake.power_cut()
    fake.broken.add("nvme0n1")
    assert await code_of(fake, place) == "DriveDamaged"


async def test_unmounted_when_nothing_in_it_is_open(fake: FakeDrives, place: Path) -> None:
    device = fake.add("nvme0", "S1")
    await drives(fake).unmount(place)
    await drives(fake).mount("S1", 1, place)
    fake.busy.add(str(place))
    with pytest.raises(CarmelError) as raised:
        await drives(fake).unmount(place)
    assert raised.value.code == "DatastoreInUse"
    fake.busy.clear()
    await drives(fake).unmount(place)
    assert fake.mounted_at(device) is None
    assert names_in(place.parent) == []


async def test_a_drive_is_waited_for_as_long_as_is_said(fake: FakeDrives, place: Path) -> None:
    fake.add("nvme0", "S1")
    space = await drives(fake).mount("S1", 1, place)
    await drives(fake).be_patient(space, 720)
    assert (fake.tree.root / "sys/class/block/nvme0n1/queue/io_timeout").read_text() == "720000"


def test_content() -> None:
    ours = b"\0" * 1080 + b"\x53\xef" + b"\0" * 62 + LABEL.encode() + b"\0" * 100
    assert content_of(ours, b"\0").ours
    assert not content_of(ours.replace(b"carmel", b"others"), b"\0").ours
    assert content_of(b"\0" * 4096, b"\0").empty
    assert content_of(b"", b"").empty
    assert content_of(b"\0" * 4096, b"\0\1").other
