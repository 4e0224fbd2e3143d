"""The database's shape, and how an older database becomes one of this release.

Two things carry a version. The database itself: ``SCHEMA_VERSION``, kept in SQLite's ``user_version``. And each kind's
stored shape: ``Resource.storage_version``, kept with every object. A step leads from one version to the next; all the
steps that an upgrade needs run in one transaction, after a copy of the database was made beside it.

To change a stored shape: raise the version, add the step to ``STEPS``, and to the tests a database of the last release.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import orjson

from carmel import __version__
from carmel.errors import Refused
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

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
INSERT INTO meta VALUES ('written_by', '');
"""

SchemaStep = Callable[[sqlite3.Connection], None]
ObjectStep = Callable[[JsonObject], JsonObject]


@dataclass(frozen=True, slots=True)
class Steps:
    """``schema[n]`` makes the database's version n into n + 1; ``objects[(resource, n)]`` does so for one object."""

    schema_version: int = SCHEMA_VERSION
    schema: Mapping[int, SchemaStep] = field(default_factory=dict)
    objects: Mapping[tuple[str, int], ObjectStep] = field(default_factory=dict)


def _with_defaults(*defaults: tuple[str, JsonObject]) -> ObjectStep:
    """A step for fields that came with a default: it is written where there is no value yet. Paths go below ``spec``
    with dots between names, and are made."""

    def step(body: JsonObject) -> JsonObject:
        changed = deepcopy(body)
        for path, values in defaults:
            place = changed.setdefault("spec", {})
            for name in filter(None, path.split(".")):
                place = place.setdefault(name, {})
            for name, value in values.items():
                place.setdefault(name, deepcopy(value))
        return changed

    return step


STEPS = Steps(
    objects={
        ("virtualmachines.carmel.dev", 1): _with_defaults(("cpu", {"policy": "Shared", "nestedVirtualization": False})),
        ("virtualmachines.carmel.dev", 2): _with_defaults(("", {"iommu": False})),
        ("networks.carmel.dev", 1): _with_defaults(("", {"dataPlane": "Host"})),
        ("hosts.carmel.dev", 1): _with_defaults(
            ("placement", {"cpuOvercommit": 16.0}),
            ("placement.rebalance", {"mode": "Automatic", "memoryPerPass": "64Gi", "movesPerPass": 8}),
        ),
    }
)


def outdated(connection: sqlite3.Connection, kinds: Mapping[str, Kind], steps: Steps) -> bool:
    """Whether there is anything to migrate. Raises ``Refused`` for what a newer release wrote."""
    found = _schema_version(connection)
    if found > steps.schema_version:
        raise _too_new(connection, f"has version {found}, this carmeld knows {steps.schema_version}")
    if found < steps.schema_version:
        return True
    old = False
    for resource, version in connection.execute("SELECT DISTINCT resource, storage_version FROM objects").fetchall():
        kind = kinds.get(resource)
        if kind is not None and version > kind.model.storage_version:
            known = kind.model.storage_version
            raise _too_new(connection, f"holds {resource} of version {version}, this carmeld knows {known}")
        old = old or (kind is not None and version < kind.model.storage_version)
    return old


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _too_new(connection: sqlite3.Connection, found: str) -> Refused:
    row = connection.execute("SELECT value FROM meta WHERE key = 'written_by'").fetchone()
    writer = f"carmeld {row[0]}" if row and row[0] else "a newer carmeld"
    return Refused(
        f"the database was written by {writer}: it {found}, so carmeld {__version__} does not touch it",
        code="StoreTooNew",
        hint=f"run {writer} or later; or put back the .backup file that lies beside the database since the upgrade",
    )


def migrate(connection: sqlite3.Connection, kinds: Mapping[str, Kind], steps: Steps, revision: int) -> None:
    """Run every step, inside the caller's transaction. Objects that change get revisions from ``revision`` on."""
    for version in range(_schema_version(connection), steps.schema_version):
        steps.schema[version](connection)
    connection.execute(f"PRAGMA user_version = {steps.schema_version}")
    for kind in kinds.values():
        for row, stored, version in _older(connection, kind):
            body = stored
            for step in range(version, kind.model.storage_version):
                body = steps.objects[kind.resource, step](body)
            revision += 1
            body["metadata"]["resourceVersion"] = str(revision)
            raw = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
            connection.execute(
                "UPDATE objects SET revision = ?, storage_version = ?, crc32 = ?, body = ? WHERE rowid = ?",
                (revision, kind.model.storage_version, zlib.crc32(raw), raw, row),
            )
    connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (revision,))


def _older(connection: sqlite3.Connection, kind: Kind) -> Iterator[tuple[int, JsonObject, int]]:
    rows = connection.execute(
        "SELECT rowid, body, storage_version FROM objects WHERE resource = ? AND storage_version < ?",
        (kind.resource, kind.model.storage_version),
    )
    for row, body, version in rows.fetchall():
        yield row, orjson.loads(body), version
