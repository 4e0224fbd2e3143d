"""Records of uplinks that were taken over: whole or not there, and never in the way of a start."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from carmel.errors import CarmelError, TimedOut, Unavailable
from carmel.network.dataplane import NetworkPlan, UplinkPlan
from carmel.network.host.kernel import KernelState, Link
from carmel.network.host.netlink import Netlink
from carmel.network.host.takeover import Record, Stage, Takeovers, boot_id, now, read, write
from carmel.run import Command, Result

_NETWORK = NetworkPlan("lan", uplink=UplinkPlan(("eth0",), takeover=True))


class _Runner:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.started: list[str] = []

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.started.append(str(command.argv[-1]))
        if self.fails:
            raise TimedOut("python did not end", code="ProgramTimedOut")
        return Result(0, b"", b"")


def _record(stage: Stage = Stage.PENDING) -> Record:
    return Record(
        stage, "digest", "cmb0123456789", "eth0", 1500, ["192.0.2.1/24"], [], boot_id(), now() + 60, 0.0, 60.0
    )


def _takeovers(folder: Path, runner: _Runner) -> Takeovers:
    return Takeovers(Netlink(), runner, folder, None)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = _record()
    write(tmp_path / "a.json", record)
    assert read(tmp_path / "a.json") == record
    assert read(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stage": "other"}', "null"])
async def test_a_damaged_record_does_not_keep_the_daemon_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    runner = _Runner()
    takeovers = _takeovers(tmp_path, runner)
    await takeovers.recover()
    async with takeovers.held() as rolled_back:
        assert rolled_back == frozenset()
    assert runner.started == []


async def test_a_start_watches_what_is_pending_and_gives_up_what_a_reboot_undid(tmp_path: Path) -> None:
    write(tmp_path / "now.json", _record())
    write(tmp_path / "before.json", replace(_record(), boot="another"))
    write(tmp_path / "confirmed.json", _record(Stage.CONFIRMED))
    runner = _Runner()
    takeovers = _takeovers(tmp_path, runner)
    await takeovers.recover()
    assert runner.started == [str(tmp_path / "now.json")]
    before, confirmed = read(tmp_path / "before.json"), read(tmp_path / "confirmed.json")
    assert before is not None
    assert before.stage is Stage.ROLLED_BACK
    assert confirmed is not None
    assert confirmed.stage is Stage.CONFIRMED


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.suffix == ".json")


async def test_nothing_is_taken_over_that_nobody_would_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_routes(self: Netlink, work: object) -> list[object]:
        return []

    monkeypatch.setattr(Netlink, "call", no_routes)
    kernel = KernelState({"eth0": Link("eth0", 2, addresses=frozenset({IPv4Interface("192.0.2.1/24")}))})
    with pytest.raises(CarmelError, match="did not end"):
        await _takeovers(tmp_path, _Runner(fails=True)).begin(_NETWORK, kernel)
    assert _files(tmp_path) == []

    def full(_file: Path, _record: Record) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("carmel.network.host.takeover.write", full)
    with pytest.raises(Unavailable, match="cannot note how eth0 is set up now: No space"):
        await _takeovers(tmp_path, _Runner()).begin(_NETWORK, kernel)
