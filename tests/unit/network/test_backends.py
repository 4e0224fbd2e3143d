"""Which back end is chosen and why: by a passt that works, one that does not, and none."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from carmel.network import backends, passt_probe
from carmel.network.backends import Backend, Backends, Choice
from tests.unit.network.fake_passt import FakePasst, Manner

LATE = "passt here keeps servers that speak first (such as SSH) waiting: QEMU's own network is used"


@pytest.mark.parametrize(
    ("manner", "expected"),
    [(Manner.WORKS, Choice(Backend.PASST)), (Manner.LATE, Choice(Backend.SLIRP, LATE))],
)
async def test_it_is_tried_once_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, manner: Manner, expected: Choice
) -> None:
    monkeypatch.setattr(backends, "find_program", lambda _name: Path("/usr/bin/passt"))
    monkeypatch.setattr(passt_probe, "_HANDSHAKE_SECONDS", 0.1 if manner is Manner.LATE else 10)
    caplog.set_level(logging.INFO, backends.__name__)
    passt = FakePasst([manner])
    found = Backends(passt)
    assert list(await asyncio.gather(found.choice(), found.choice())) == [expected, expected]
    assert await found.best() is expected.backend
    assert (passt.starts, passt.running) == (1, 0)
    assert caplog.messages == ([expected.reason] if expected.reason else [])


async def test_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_program", lambda _name: None)
    passt = FakePasst([Manner.WORKS])
    expected = Choice(Backend.SLIRP, "passt is not installed: QEMU's own network is used")
    assert await Backends(passt).choice() == expected
    assert passt.starts == 0


async def test_what_is_forced_is_not_tried() -> None:
    passt = FakePasst([Manner.LATE])
    assert await Backends(passt, forced=Backend.PASST).choice() == Choice(Backend.PASST)
    assert passt.starts == 0
