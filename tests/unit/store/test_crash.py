"""A process that is killed in the middle of writing loses nothing that it had answered, and tears nothing."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from carmel.resources.core import SECRET
from carmel.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("crash_child.py")
ROUNDS = 4


def run_and_kill(database: Path, seed: int) -> dict[int, tuple[int, int]]:
    """Kill the child after a random number of answers: each worker's last answered and last begun write."""
    state: dict[int, tuple[int, int]] = {}
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(database), str(seed)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as child:
        assert child.stdout is not None
        left = random.Random(seed).randrange(20, 400)
        for line in child.stdout:
            worker, number, what = json.loads(line)
            done, begun = state.get(worker, (number, number))
            state[worker] = (number, begun) if what == "done" else (done, number)
            left -= what == "done"
            if left == 0:
                child.kill()
        assert child.wait() == -9
    return state


def expected(number: int) -> int | None:
    """What the Secret holds after write ``number``: every fifth deletes it."""
    return None if number % 5 == 0 else number


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    database = tmp_path / "state" / "store.sqlite"
    for turn in range(ROUNDS):
        state = run_and_kill(database, seed * 100 + turn)
        assert len(state) == 4
        store = await SqliteStore.open(database)
        try:
            found = {one.name: one.json() for one in (await store.list(SECRET)).items}
        finally:
            await store.close()
        for worker, (done, begun) in state.items():
            body = found.get(f"s{worker}")
            number = None if body is None else int(base64.b64decode(body["data"]["n"]))
            # A write that was begun but not answered may have happened or not.
            assert number in {expected(done), expected(begun)}, (turn, worker, done, begun)
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
