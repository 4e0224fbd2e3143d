"""The file: who may read it, what a full disk, damage or a second process does to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from carmel.errors import Expired, InsufficientStorage, Refused, Unavailable
from carmel.resources.core import NAMESPACE, SECRET
from carmel.store.memory import Change
from carmel.store.protocol import PatchType, WatchEvent
from carmel.store.reserve import RESERVE_BYTES
from carmel.store.sqlite import SqliteStore
from tests.contract.objects import secret
from tests.stores import open_store


def large(name: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"key": "QUFB" * 30_000}}


def limit_pages(store: SqliteStore, pages: int) -> None:
    store._database._connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with open_store(folder) as store:
        await store.create(SECRET, secret("a"))
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path
    (folder / "store.sqlite").chmod(0o644)
    async with open_store(folder):
        assert (folder / "store.sqlite").stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_changes_nothing_and_passes(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        kept = await store.create(SECRET, secret("kept"))
        limit_pages(store, 40)
        async with store.watch(SECRET) as watch:
            results = await asyncio.gather(
                *(store.create(SECRET, large(f"large{index}")) for index in range(4)),
                store.create(SECRET, secret("small")),
                return_exceptions=True,
            )
            errors = [one for one in results if isinstance(one, BaseException)]
            assert errors
            assert all(isinstance(one, InsufficientStorage) and one.code == "StoreDiskFull" for one in errors)
            assert not isinstance(results[-1], BaseException), "there was room for the small one"
            stored = {one.name for one in results if not isinstance(one, BaseException)}
            assert {one.name for one in (await store.list(SECRET)).items} == {"kept", *stored}
            events: list[WatchEvent] = [await anext(watch) for _ in stored]
            assert {event.object.name for event in events if event.object} == stored
        for name in stored - {"small"}:
            await store.delete(SECRET, "default", name)
        limit_pages(store, 2**30)
        await store.create(SECRET, large("later"))
    async with open_store(tmp_path) as store:
        assert {one.name for one in (await store.list(SECRET)).items} == {"kept", "small", "later"}
        assert (await store.get(SECRET, "default", "kept")) == kept


async def test_a_disk_that_fails(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        failing = sqlite3.OperationalError("disk I/O error")
        failing.sqlite_errorcode = sqlite3.SQLITE_IOERR
        with (
            mock.patch.object(store._database, "_connection", mock.Mock(execute=mock.Mock(side_effect=failing))),
            pytest.raises(Unavailable, match="disk I/O error") as caught,
        ):
            await store.create(SECRET, secret("a"))
        assert caught.value.hint
        assert not (await store.list(SECRET)).items
        await store.create(SECRET, secret("a"))


async def test_only_one_process_has_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        with pytest.raises(Refused) as caught:
            await SqliteStore.open(tmp_path / "store.sqlite")
        assert caught.value.code == "StoreInUse"
        await store.create(SECRET, secret("a"))


@pytest.mark.parametrize("content", [b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    with pytest.raises(Refused, match="is damaged") as caught:
        await SqliteStore.open(path)
    assert caught.value.code == "StoreDamaged"
    assert caught.value.hint
    assert path.read_bytes() == content


async def test_the_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(Refused, match="another program"):
        await SqliteStore.open(path)


async def test_torn_pages_and_changed_bytes(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for index in range(20):
            await store.create(SECRET, large(f"s{index}"))
    path = tmp_path / "store.sqlite"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole.replace(b"QUFBQUFB", b"QUFBQUFC", 1)):
        path.write_bytes(content)
        with pytest.raises(Refused) as caught:
            await SqliteStore.open(path)
        assert caught.value.code == "StoreDamaged"


async def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused) as caught:
        await SqliteStore.open(tmp_path / "file" / "store.sqlite")
    assert caught.value.code == "StoreUnusable"


async def test_a_watch_goes_on_over_a_restart_when_nothing_was_missed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.create(SECRET, secret("a"))
        early = (await store.list(SECRET)).resource_version
        await store.create(SECRET, secret("b"))
        late = (await store.list(SECRET)).resource_version
    async with open_store(tmp_path) as store:
        created = await store.create(SECRET, secret("c"))
        async with store.watch(SECRET, since=late) as watch:
            assert (await anext(watch)).object == created
        with pytest.raises(Expired, match="too old"):
            async with store.watch(SECRET, since=early):
                pass


async def test_versions_never_go_back(tmp_path: Path) -> None:
    """Not with a clock in 2001, nor with a backup in the database's place."""
    path = tmp_path / "store.sqlite"
    async with open_store(tmp_path):
        pass
    backup = path.read_bytes()
    async with open_store(tmp_path) as store:
        lost = await store.create(SECRET, secret("lost"))
    with mock.patch("time.time_ns", return_value=978_307_200 * 10**9):
        async with open_store(tmp_path) as store:
            past = await store.create(SECRET, secret("past"))
    assert int(past.resource_version) > int(lost.resource_version)
    path.write_bytes(backup)
    async with open_store(tmp_path) as store:
        assert not (await store.list(SECRET)).items
        assert int((await store.create(SECRET, secret("new"))).resource_version) > int(past.resource_version)
        with pytest.raises(Expired, match="too old"):
            async with store.watch(SECRET, since=lost.resource_version):
                pass


async def test_writes_that_wait_share_one_commit(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        commits = mock.Mock(wraps=store._database.commit)
        with mock.patch.object(store._database, "commit", commits):
            await asyncio.gather(*(store.create(SECRET, secret(f"s{index}")) for index in range(100)))
        assert commits.call_count <= 3


async def test_a_caller_that_goes_away(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        first = asyncio.create_task(store.create(SECRET, secret("a")))
        second = asyncio.create_task(store.create(SECRET, secret("b")))
        await asyncio.sleep(0)
        second.cancel()
        await first
        await store.patch(SECRET, "default", "a", b'{"data":{"x":"eA=="}}', PatchType.MERGE)


async def test_closing_ends_watches_and_answers_what_waits(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.sqlite")
    async with store.watch(NAMESPACE) as watch:
        writing = asyncio.create_task(store.create(NAMESPACE, {"metadata": {"name": "default"}}))
        waiting = asyncio.create_task(_drain(watch))
        await asyncio.sleep(0)
        await store.close()
        assert (await writing).name == "default"
        await waiting
    with pytest.raises(Unavailable):
        await store.list(NAMESPACE)
    await store.close()


async def _drain(watch: object) -> None:
    async for _ in watch:  # type: ignore[attr-defined]
        pass


async def test_bookmarks_come_when_other_kinds_change(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.sqlite", bookmark_seconds=0.01)
    async with asyncio.timeout(10), store.watch(SECRET, bookmarks=True) as watch:
        created = await store.create(NAMESPACE, {"metadata": {"name": "default"}})
        event = await anext(watch)
        assert (event.type, event.resource_version) == ("BOOKMARK", created.resource_version)
        assert event.object is None
    await store.close()


async def test_on_a_full_disk_there_is_room_to_delete(tmp_path: Path) -> None:
    reserve = tmp_path / "store.sqlite.reserve"
    async with open_store(tmp_path) as store:
        await store.create(SECRET, secret("a"))
        assert reserve.stat().st_size == RESERVE_BYTES
        commit = store._database._commit

        def full_while_reserved(changes: Sequence[Change]) -> None:
            if reserve.exists():
                raise InsufficientStorage("full")
            commit(changes)

        with (
            mock.patch.object(store._database, "_commit", full_while_reserved),
            mock.patch("os.statvfs", return_value=mock.Mock(f_bavail=0, f_frsize=4096)),
        ):
            with pytest.raises(InsufficientStorage):
                await store.create(SECRET, secret("b"))
            assert reserve.exists()
            await store.delete(SECRET, "default", "a")
            assert not reserve.exists()
        assert not (await store.list(SECRET)).items
        await store.create(SECRET, secret("c"))
        assert reserve.exists(), "taken again when the disk has room"


async def test_a_bug_in_the_writer_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        with mock.patch.object(store._database, "commit", side_effect=MemoryError):
            async with asyncio.timeout(20):
                results = await asyncio.gather(
                    *(store.create(SECRET, secret(name)) for name in ("a", "b")), return_exceptions=True
                )
        assert all(isinstance(one, MemoryError) for one in results)
        assert (await store.create(SECRET, secret("c"))).name == "c"
