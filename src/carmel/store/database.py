"""The SQLite file: what is durable. All of it runs on the store's one writer thread.

WAL with ``synchronous=FULL``: a transaction is on the disk when its commit returns (SQLite, "Write-Ahead Logging").
The file is locked for this process alone as long as it is open, since what the store holds in memory would otherwise
grow stale; without other processes SQLite needs no shared memory file either.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from carmel import __version__
from carmel.errors import CarmelError, InsufficientStorage, Refused, Unavailable
from carmel.resources.kinds import Kind
from carmel.store.memory import Change
from carmel.store.migrations import SCHEMA, STEPS, Steps, migrate, outdated
from carmel.store.protocol import EventType, Stored
from carmel.store.reserve import Reserve

APPLICATION_ID = 0x43726D6C
"""``Crml`` in the file's header, so that one can tell it from other SQLite databases."""

CHECKED_BYTES = 64 * 1024 * 1024
"""Up to this size the whole file's structure is checked when it is opened (some 100 ms); beyond, what is read of it."""

_UPSERT = (
    "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (resource, namespace, name) DO UPDATE SET "
    "uid = excluded.uid, revision = excluded.revision, storage_version = excluded.storage_version, "
    "crc32 = excluded.crc32, body = excluded.body"
)
_DELETE = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
_SELECT = "SELECT resource, namespace, name, uid, revision, crc32, body FROM objects"
_SET = "UPDATE meta SET value = ? WHERE key = ?"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database held when it was opened, and the revision to go on from."""

    objects: Mapping[Kind, Sequence[Stored]]
    opened_from: int
    revision: int


class Database:
    """An open database. Open, use and ``close`` it on one thread.

    Raises ``Refused`` for one that is in use, damaged, or newer than this program; an older one is migrated.
    """

    def __init__(self, path: Path, kinds: Sequence[Kind], steps: Steps = STEPS) -> None:
        self._path = path
        self._kinds = {kind.resource: kind for kind in kinds}
        self._steps = steps
        _make_private(path)
        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
        try:
            with _explained(path):
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA fullfsync = ON")
        if not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {self._steps.schema_version}; COMMIT;"
            )
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise _damaged(self._path, "it is the database of another program")
        if self._path.stat().st_size <= CHECKED_BYTES and (found := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise _damaged(self._path, found)
        if outdated(self._connection, self._kinds, self._steps):
            self._upgrade()

    def _upgrade(self) -> None:
        backup = self._path.with_name(f"{self._path.name}.{self._meta('written_by') or 'old'}.backup")
        _copy(self._connection, backup)
        _log.warning("the database %s is of an older release: it is upgraded, %s is a copy", self._path, backup)
        with self._transaction():
            migrate(self._connection, self._kinds, self._steps, self._next_revision())

    def _meta(self, key: str) -> str | int:
        found: str | int = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
        return found

    def _next_revision(self) -> int:
        # By the clock, so that an old backup in this place gives no revision that was given before; but never back,
        # for a machine without a clock that keeps time starts in the past.
        return max(int(self._meta("revision")) + 1, time.time_ns() // 1000)

    def load(self) -> Contents:
        """Everything that is stored. Raises ``Refused`` when some of it is not what was written."""
        objects: dict[Kind, list[Stored]] = {kind: [] for kind in self._kinds.values()}
        with _explained(self._path):
            opened_from, revision = int(self._meta("revision")), self._next_revision()
            for resource, namespace, name, uid, version, checksum, body in self._connection.execute(_SELECT):
                if zlib.crc32(body) != checksum:
                    raise _damaged(self._path, f"{resource} {namespace}/{name} does not have its checksum")
                kind = self._kinds.get(resource)
                if kind is not None:
                    objects[kind].append(Stored(kind, sys.intern(namespace) or None, name, uid, str(version), body))
        try:
            with self._transaction():
                self._connection.executemany(_SET, [(revision, "revision"), (__version__, "written_by")])
        except InsufficientStorage as error:
            # Reading must go on: how else would somebody find out what to delete?
            _log.warning("%s; %s", error.message, error.hint)
        self._reserve.keep()
        return Contents(objects, opened_from, revision)

    def commit(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none. Raises ``InsufficientStorage`` or ``Unavailable``: then none was.

        On a full disk, changes and deletions still find room for a while, so that people can delete what fills it.
        """
        try:
            self._commit(changes)
        except InsufficientStorage:
            if any(change.type is EventType.ADDED for change in changes) or not self._reserve.release():
                raise
            with _explained(self._path):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._commit(changes)
        self._reserve.keep()

    def _commit(self, changes: Sequence[Change]) -> None:
        with self._transaction():
            for change in changes:
                after = change.after
                where = after.kind.resource, after.namespace or "", after.name
                if change.type is EventType.DELETED:
                    self._connection.execute(_DELETE, where)
                else:
                    storage = after.kind.model.storage_version
                    checksum = zlib.crc32(after.raw)
                    self._connection.execute(
                        _UPSERT, (*where, after.uid, change.revision, storage, checksum, after.raw)
                    )
            self._connection.execute(_SET, (changes[-1].revision, "revision"))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self._path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended it already (SQLite, "Response To Errors Within A Transaction").
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._connection.close()


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made here first, so that no moment sees it with the wide mode that SQLite would give it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        _sync(path.parent)
    except OSError as error:
        raise Refused(
            f"cannot open the database {path}: {error.strerror}",
            code="StoreUnusable",
            hint=f"make {path.parent} a directory that this user may write to",
        ) from error


def _copy(source: sqlite3.Connection, target: Path) -> None:
    """A whole copy of an open database: there under its name only when it is complete and durable."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
    _sync(part)
    part.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, found: str) -> Refused:
    return Refused(
        f"the database {path} is damaged: {found}",
        code="StoreDamaged",
        hint=f"put a backup in its place, or save what can be read by: sqlite3 {path} .recover",
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.Error, path: Path) -> CarmelError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return InsufficientStorage(
            f"the disk that holds {path} is full: nothing was changed",
            code="StoreDiskFull",
            hint=f"free some space on the file system of {path.parent}, then try again",
            retryable=True,
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Refused(
            f"{path} is in use by another process",
            code="StoreInUse",
            hint="stop the other carmeld, or give this one a state directory of its own",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    return Unavailable(
        f"cannot use {path}: {error}",
        code="StoreUnavailable",
        hint=f"look for errors of the disk that holds {path.parent} in the kernel's log",
    )
