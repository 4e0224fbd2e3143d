"""Databases of other releases: older ones are opened as they are or upgraded, newer ones are left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET, Secret
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS
from carmel.resources.virtualmachine import VIRTUAL_MACHINE as VM
from carmel.store.migrations import SCHEMA_VERSION, STEPS, Steps
from carmel.store.protocol import PatchType
from carmel.store.sqlite import SqliteStore

RELEASES = sorted((Path(__file__).parents[2] / "data" / "store").glob("*.sql"))


def build(release: Path, folder: Path) -> Path:
    path = folder / "store.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(release.read_text())
    return path


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
async def test_the_database_of_a_release(tmp_path: Path, release: Path) -> None:
    store = await SqliteStore.open(build(release, tmp_path))
    try:
        web = (await store.get(VM, "default", "web")).json()
        assert web["spec"]["cpu"]["count"] == 2
        assert web["spec"]["cpu"]["policy"] == "Shared"
        assert web["status"]["powerState"] == "PoweredOn"
        assert {one["manager"] for one in web["metadata"]["managedFields"]} == {"kubectl", "carmeld"}
        going = (await store.get(VM, "default", "going")).json()
        assert going["metadata"]["deletionTimestamp"]
        for kind in KINDS:
            for stored in (await store.list(kind)).items:
                assert await store.replace(kind, stored.json()) == stored, "still valid, and in today's form"
        await store.patch(VM, "default", "web", b'{"spec":{"cpu":{"count":4}}}', PatchType.MERGE)
    finally:
        await store.close()


class NewSecret(Secret):
    """Secrets of a release to come."""

    storage_version = 3


def kinds_to_come() -> list[Kind]:
    return [replace(kind, model=NewSecret) if kind == SECRET else kind for kind in KINDS]


def label(value: str) -> Callable[[JsonObject], JsonObject]:
    def step(body: JsonObject) -> JsonObject:
        labels = body["metadata"].get("labels") or {}
        return {**body, "metadata": {**body["metadata"], "labels": {**labels, value: "yes"}}}

    return step


def add_column(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE later (x INTEGER) STRICT")


STEPS_TO_COME = Steps(
    schema_version=SCHEMA_VERSION + 1,
    schema={SCHEMA_VERSION: add_column},
    objects={**STEPS.objects, ("secrets", 1): label("one"), ("secrets", 2): label("two")},
)


async def test_an_upgrade_keeps_a_backup(tmp_path: Path) -> None:
    path = build(RELEASES[0], tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        (revision,) = connection.execute("SELECT revision FROM objects WHERE resource = 'secrets'").fetchone()
    store = await SqliteStore.open(path, kinds_to_come(), steps=STEPS_TO_COME)
    secret = await store.get(SECRET, "default", "user-data")
    assert secret.json()["metadata"]["labels"] == {"one": "yes", "two": "yes"}
    assert secret.json()["metadata"]["resourceVersion"] == secret.resource_version
    assert int(secret.resource_version) > revision
    await store.close()
    store = await SqliteStore.open(path, kinds_to_come(), steps=STEPS_TO_COME)
    assert await store.get(SECRET, "default", "user-data") == secret
    await store.close()

    backup = tmp_path / "store.sqlite.0.1.0.backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert not backup.with_name(backup.name + ".part").exists()
    with pytest.raises(Refused) as caught:
        await SqliteStore.open(path)
    assert caught.value.code == "StoreTooNew"
    assert f"version {SCHEMA_VERSION + 1}" in caught.value.message
    backup.replace(path)
    store = await SqliteStore.open(path)
    assert "labels" not in (await store.get(SECRET, "default", "user-data")).json()["metadata"]
    await store.close()


async def test_newer_objects_in_a_database_of_today(tmp_path: Path) -> None:
    path = build(RELEASES[0], tmp_path)
    steps = replace(STEPS_TO_COME, schema_version=SCHEMA_VERSION, schema={})
    await (await SqliteStore.open(path, kinds_to_come(), steps=steps)).close()
    with pytest.raises(Refused, match="secrets of version 3, this carmeld knows 1"):
        await SqliteStore.open(path)


async def test_an_upgrade_that_fails_midway_changes_nothing(tmp_path: Path) -> None:
    path = build(RELEASES[0], tmp_path)

    def broken(_body: JsonObject) -> JsonObject:
        raise ValueError("this object was never expected")

    steps = replace(STEPS_TO_COME, objects={**STEPS.objects, ("secrets", 1): label("one"), ("secrets", 2): broken})
    with pytest.raises(ValueError, match="never expected"):
        await SqliteStore.open(path, kinds_to_come(), steps=steps)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'later'").fetchall()
    store = await SqliteStore.open(path)
    assert "labels" not in (await store.get(SECRET, "default", "user-data")).json()["metadata"]
    assert (await store.get(NAMESPACE, None, "default")).name == "default"
    await store.close()
