"""What is found to speak against a passt, by its manner towards a guest."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from carmel.network import passt_probe
from carmel.network.passt_probe import DEAF, SPEAKS_LATE, find_fault
from tests.unit.network.fake_passt import FakePasst, Manner

PROGRAM = Path("/usr/bin/passt")
ENDED = "passt does not work here: No routable interface for IPv4"


@pytest.mark.parametrize(
    ("manners", "expected", "starts"),
    [
        ([Manner.WORKS], None, 1),
        ([Manner.LATE], SPEAKS_LATE, 1),
        ([Manner.WRONG], SPEAKS_LATE, 1),
        ([Manner.DEAF], DEAF, 1),
        ([Manner.GARBAGE], DEAF, 1),
        ([Manner.ENDS], ENDED, 2),
        ([Manner.ENDS, Manner.WORKS], None, 2),
        ([Manner.ENDS, Manner.LATE], SPEAKS_LATE, 2),
    ],
)
async def test_its_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, manners: list[Manner], expected: str | None, starts: int
) -> None:
    # What comes has time on a busy machine; what does not come need not be waited for.
    monkeypatch.setattr(passt_probe, "_START_SECONDS", 0.1 if expected == DEAF else 10)
    monkeypatch.setattr(passt_probe, "_HANDSHAKE_SECONDS", 0.1 if expected == SPEAKS_LATE else 10)
    passt = FakePasst(manners)
    assert await find_fault(passt, PROGRAM, user=12, group=34) == expected
    assert (passt.starts, passt.running) == (starts, 0)
    assert {(one.user, one.group) for one in passt.commands} == {(12, 34)}


async def test_nothing_is_left_of_it() -> None:
    passt = FakePasst([Manner.WORKS])
    await find_fault(passt, PROGRAM)
    (command,) = passt.commands
    port = int(str(command.argv[command.argv.index("--tcp-ports") + 1]).split("/")[1].split(":")[0])
    with socket.socket() as one, pytest.raises(ConnectionRefusedError):
        one.connect(("127.0.0.1", port))
    for descriptor in command.pass_fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            socket.socket(fileno=descriptor)
