"""Writes to a store without end and says what was begun and what was answered, until it is killed.

Run by ``test_crash``: ``python crash_child.py DATABASE SEED``. Lines of JSON on standard output:
``[worker, number, "begin" | "done"]``. Write ``number`` of a worker sets its Secret's ``n``; every fifth deletes it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
from pathlib import Path

from carmel.errors import NotFound
from carmel.resources.core import NAMESPACE, SECRET
from carmel.store.sqlite import SqliteStore

WORKERS = 4


def say(*line: object) -> None:
    # One write of less than PIPE_BUF bytes: whole or not at all, whenever the kill comes.
    os.write(1, json.dumps(line).encode() + b"\n")


def value(number: int) -> str:
    return base64.b64encode(str(number).encode()).decode()


async def work(store: SqliteStore, worker: int, chance: random.Random) -> None:
    name = f"s{worker}"
    try:
        stored = (await store.get(SECRET, "default", name)).json()
        number = int(base64.b64decode(stored["data"]["n"]))
    except NotFound:
        number = 0
    say(worker, number, "done")
    while True:
        number += 1
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "data": {"n": value(number), "padding": "QUFB" * chance.randrange(2000)},
        }
        say(worker, number, "begin")
        if number % 5 == 0:
            await store.delete(SECRET, "default", name)
        elif number % 5 == 1:
            await store.create(SECRET, body)
        else:
            await store.replace(SECRET, body)
        say(worker, number, "done")


async def main(path: Path, seed: int) -> None:
    store = await SqliteStore.open(path)
    if not (await store.list(NAMESPACE)).items:
        await store.create(NAMESPACE, {"metadata": {"name": "default"}})
    await asyncio.gather(*(work(store, worker, random.Random(seed + worker)) for worker in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
