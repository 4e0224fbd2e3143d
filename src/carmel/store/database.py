"""The SQLite file: what is durable. All of it runs on the store's one writer thread.

WAL with ``synchronous=FULL``: a transaction is on the disk when its commit returns (SQLite, "Write-Ahead Logging").
The file is locked for this process alone as long as it is open, since what the store holds in memory would otherwise
grow stale; without other processes SQLite needs no shared memory file either.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError, InsufficientStorage, Refused, Unavailable
from carmel.resources.kinds import Kind
from carmel.store.memory import Change
from carmel.store.protocol import EventType, Stored

APPLICATION_ID = 0x43726D6C
"""``Crml`` in the file's header, so that one can tell it from other SQLite databases."""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE objects (
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    storage_version INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) STRICT;
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0);
"""

_UPSERT = (
    "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (resource, namespace, name) DO UPDATE SET "
    "uid = excluded.uid, revision = excluded.revision, storage_version = excluded.storage_version, "
    "crc32 = excluded.crc32, body = excluded.body"
)
_DELETE = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
_SELECT = "SELECT resource, namespace, name, uid, revision, crc32, body FROM objects"
_REVISION = "UPDATE meta SET value = ? WHERE key = 'revision'"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database held when it was opened, and the revision to go on from."""

    objects: Mapping[Kind, Sequence[Stored]]
    opened_from: int
    revision: int


class Database:
    """An open database. ``close`` it on the thread that uses it."""

    def __init__(self, path: Path, kinds: Sequence[Kind]) -> None:
        self._path = path
        self._kinds = {kind.resource: kind for kind in kinds}
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made here first, so that no moment sees it with the wide mode that SQLite would give it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=2)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        return connection

    def load(self) -> Contents:
        """Everything that is stored."""
        opened_from = int(self._connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()[0])
        objects: dict[Kind, list[Stored]] = {kind: [] for kind in self._kinds.values()}
        for resource, namespace, name, uid, revision, _crc, body in self._connection.execute(_SELECT):
            kind = self._kinds.get(resource)
            if kind is not None:
                objects[kind].append(Stored(kind, namespace or None, name, uid, str(revision), body))
        revision = max(opened_from + 1, time.time_ns() // 1000)
        with self._transaction():
            self._connection.execute(_REVISION, (revision,))
        return Contents(objects, opened_from, revision)

    def commit(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none. Raises ``InsufficientStorage`` or ``Unavailable``: then none was."""
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
            self._connection.execute(_REVISION, (changes[-1].revision,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            # A full disk may have ended the transaction already (SQLite, "Response To Errors Within A Transaction").
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _explain(error, self._path) from error

    def close(self) -> None:
        self._connection.close()


def _explain(error: sqlite3.Error, path: Path) -> CarmelError:
    """The error of ours that a failed statement is."""
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
    return Unavailable(
        f"cannot write {path}: {error}",
        code="StoreUnavailable",
        hint=f"look for errors of the disk that holds {path.parent} in the kernel's log",
    )
