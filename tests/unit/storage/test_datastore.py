"""The directory of a datastore: places, modes, left-overs, refused paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.errors import CarmelError, InsufficientStorage
from carmel.storage.datastore import DirectoryDatastore
from carmel.storage.files import ProcessUser
from carmel.storage.opening import check_path, open_datastore

UID = "0b9f6c1e-0000-4000-8000-000000000001"


@pytest.fixture
def datastore(tmp_path: Path) -> Iterator[DirectoryDatastore]:
    opened = open_datastore(tmp_path / "store", trusted=True)
    yield opened
    opened.close()


async def test_a_volume_is_published_by_one_rename(datastore: DirectoryDatastore) -> None:
    async with datastore.workspace(UID, "create") as workspace:
        (workspace / "v").write_bytes(b"disk")
        await datastore.publish_volume(UID, workspace / "v")
    assert datastore.volume(UID).read_bytes() == b"disk"
    assert datastore.volume(UID).stat().st_mode & 0o777 == 0o600
    assert list((datastore.root / "tmp").iterdir()) == []
    await datastore.remove_volume(UID)
    await datastore.remove_volume(UID)
    assert not datastore.volume(UID).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_disks_belong_to_the_group_of_qemus_user(tmp_path: Path) -> None:
    opened = open_datastore(tmp_path / "store", user=ProcessUser(65534, 65534), trusted=True)
    try:
        async with opened.workspace(UID, "import") as workspace:
            assert workspace.stat().st_uid == 65534
            (workspace / "image").mkdir()
            (workspace / "image" / "disk.qcow2").write_bytes(b"disk")
            await opened.publish_image(UID, workspace / "image")
        found = opened.image_disk(UID).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 65534, 0o640)
        assert opened.image(UID).stat().st_mode & 0o777 == 0o711
    finally:
        opened.close()


async def test_a_failed_piece_of_work_leaves_nothing(datastore: DirectoryDatastore) -> None:
    async def work() -> None:
        async with datastore.workspace(UID, "import") as workspace:
            (workspace / "half").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    assert list((datastore.root / "tmp").iterdir()) == []


async def test_a_sweep_keeps_the_downloads_of_what_still_is(datastore: DirectoryDatastore) -> None:
    tmp = datastore.root / "tmp"
    kept = datastore.download(UID)
    datastore.download("gone")
    (tmp / f"{UID}.import.1234").mkdir()
    outside = datastore.root.with_name("outside")
    outside.mkdir()
    (tmp / "link").symlink_to(outside)
    assert await datastore.sweep([UID]) == 3
    assert [path.name for path in tmp.iterdir()] == [kept.name]
    assert outside.is_dir()


def test_only_one_daemon_has_it(datastore: DirectoryDatastore) -> None:
    with pytest.raises(CarmelError) as caught:
        open_datastore(datastore.root, trusted=True)
    assert caught.value.code == "DatastoreInUse"


def test_one_whose_disk_is_not_mounted_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(CarmelError) as caught:
        open_datastore(tmp_path / "store", trusted=True, must_exist=True)
    assert caught.value.code == "DatastoreMissing"
    assert not (tmp_path / "store").exists()


def test_one_that_was_moved_away_is_noticed(datastore: DirectoryDatastore) -> None:
    datastore.require_there()
    datastore.root.rename(datastore.root.with_name("elsewhere"))
    with pytest.raises(CarmelError) as caught:
        datastore.require_there()
    assert caught.value.code == "DatastoreMissing"


def test_room_is_asked_for_before_it_is_needed(datastore: DirectoryDatastore) -> None:
    datastore.require_free(0, "a test")
    with pytest.raises(InsufficientStorage) as caught:
        datastore.require_free(datastore.capacity().free_bytes, "a test")
    assert caught.value.retryable


@pytest.mark.parametrize("uid", ["", "../x", "a/b", ".", "a b"])
def test_only_uids_become_paths(datastore: DirectoryDatastore, uid: str) -> None:
    with pytest.raises(ValueError, match="uid"):
        datastore.volume(uid)


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/carmel", "/usr/local/x", "/home", "relative", "/srv/../etc/x", "/tmp"]
)
def test_system_directories_are_refused(path: str) -> None:
    with pytest.raises(CarmelError) as caught:
        check_path(Path(path))
    assert caught.value.code == "DatastorePathRefused"


def test_links_and_open_parents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    check_path(tmp_path / "real" / "store")
    for path in (tmp_path / "link" / "store", tmp_path / "missing" / "store"):
        with pytest.raises(CarmelError):
            check_path(path)
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(CarmelError, match="everybody"):
        check_path(tmp_path / "real" / "store")
