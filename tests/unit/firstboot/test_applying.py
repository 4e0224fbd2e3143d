"""Applying carmel.yaml to a root: idempotent, nothing half, nothing lost by what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from carmel.firstboot import applying
from carmel.firstboot.applying import FirstBoot, Report, State
from carmel.firstboot.record import Record, nothing_is_new
from carmel.paths import Paths
from carmel.run import Command, Result, SystemRunner

_TOKEN = "b" * 32
_FULL = f"hostName: rack-3\napi: {{listen: 0.0.0.0, adminToken: {_TOKEN}}}\nnetwork: {{vlan: 7}}\n"


@dataclass
class Passwords:
    """A runner whose chpasswd(8) edits the shadow file below its ``--root``; all else is the real thing."""

    root: Path
    calls: list[str] = field(default_factory=list)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.calls.append(command.program)
        if command.program != "chpasswd":
            return await SystemRunner().run(command, check=check, on_line=on_line)
        assert [str(word) for word in command.argv] == ["chpasswd", "--encrypted", "--root", str(self.root)]
        assert command.stdin is not None
        name, _, password = command.stdin.decode().strip().partition(":")
        assert name == "root"
        (self.root / "etc/shadow").write_text(f"root:{password}:1::::::\ndaemon:*:1::::::\n")
        return Result(0, b"", b"")


@dataclass
class World:
    root: Path
    runner: Passwords

    @property
    def paths(self) -> Paths:
        return Paths(self.root / "var/lib/carmel", self.root / "run/carmel", self.root / "var/cache/carmel")

    def write(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        (self.root / "boot/efi/carmel.yaml").write_bytes(content)

    async def boot(self) -> Report:
        return await FirstBoot(self.paths, self.runner, root=self.root).run()

    def seen(self) -> dict[str, tuple[str, int]]:
        """Every file with what is in it and its mode, but host keys and what is on the EFI system partition."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_file() and not name.startswith(("boot/", "etc/ssh/")):
                found[name] = (path.read_text(), stat.S_IMODE(path.stat().st_mode))
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    root = tmp_path / "root"
    for name in ("boot/efi", "etc/ssh", "var/lib", "run"):
        (root / name).mkdir(parents=True)
    (root / "etc/shadow").write_text("root:*:1::::::\ndaemon:*:1::::::\n")
    (root / "etc/hostname").write_text("carmel\n")
    return World(root, Passwords(root))


async def test_applied_once_and_then_nothing_is_touched(world: World) -> None:
    world.write(_FULL)
    assert (await world.boot()).state is State.APPLIED
    before = world.seen()
    assert before["etc/hostname"] == ("rack-3\n", 0o644)
    assert before["var/lib/carmel/pki/admin.token"] == (f"{_TOKEN}\n", 0o600)
    times = {path: path.stat().st_mtime_ns for path in world.root.rglob("*") if path.is_file()}
    assert (await world.boot()).state is State.UNCHANGED
    assert world.seen() == before
    assert {path: path.stat().st_mtime_ns for path in world.root.rglob("*") if path.is_file()} == times


async def test_directories_of_secrets_are_closed_and_the_states_is_passed_through(world: World) -> None:
    world.write(_FULL)
    await world.boot()
    modes = {
        name: stat.S_IMODE((world.root / name).stat().st_mode) for name in ("var/lib/carmel", "var/lib/carmel/pki")
    }
    assert modes == {"var/lib/carmel": 0o711, "var/lib/carmel/pki": 0o700}


async def test_what_is_no_longer_asked_for_goes_and_nothing_else(world: World) -> None:
    theirs = world.root / "etc/systemd/network/50-theirs.network"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Match]\n")
    world.write(_FULL)
    await world.boot()
    assert (world.root / "etc/carmel/carmeld.env").exists()
    world.write("hostName: rack-4\n")
    assert (await world.boot()).state is State.APPLIED
    left = world.seen()
    assert left["etc/hostname"][0] == "rack-4\n"
    assert "etc/carmel/carmeld.env" not in left
    assert "var/lib/carmel/pki/admin.token" not in left
    assert [name for name in left if "systemd/network" in name] == ["etc/systemd/network/50-theirs.network"]


@pytest.mark.parametrize("bad", ["hostName: [", "hostName: Bad", b"\xff\xfe", b"x" * 70000, "network: {vlan: 0}"])
async def test_a_bad_file_keeps_what_was_good(world: World, bad: str | bytes) -> None:
    world.write(_FULL)
    await world.boot()
    before = world.seen()
    world.write(bad)
    report = await world.boot()
    assert report.state is State.REFUSED
    assert "carmel.yaml" in report.message
    assert world.seen() == before


async def test_a_file_that_went_away_changes_nothing(world: World) -> None:
    world.write(_FULL)
    await world.boot()
    before = world.seen()
    (world.root / "boot/efi/carmel.yaml").unlink()
    report = await world.boot()
    assert report.state is State.ABSENT
    assert "carmel.yaml.example" in (report.hint or "")
    assert world.seen() == before


async def test_the_name_that_windows_gives_is_recognised(world: World) -> None:
    (world.root / "boot/efi/carmel.yaml.txt").write_text(_FULL)
    report = await world.boot()
    assert report.state is State.REFUSED
    assert "rename" in (report.hint or "")


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_file_is_refused_and_never_waited_for(world: World, kind: str) -> None:
    path = world.root / "boot/efi/carmel.yaml"
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert (await world.boot()).state is State.REFUSED


@pytest.mark.parametrize("cut_at", range(12))
async def test_cut_off_anywhere_the_next_boot_comes_to_the_same(
    world: World, cut_at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The third configuration after a second one that was cut off: as if there had been no second one."""
    world.write(_FULL)
    await world.boot()
    straight = World(tmp_path / "straight", Passwords(tmp_path / "straight"))
    shutil.copytree(world.root, straight.root)
    straight.write("hostName: rack-9\n")
    await straight.boot()

    done = 0
    write = applying._write

    def cut(path: Path, content: bytes, mode: int) -> None:
        nonlocal done
        if done == cut_at:
            raise KeyboardInterrupt
        done += 1
        write(path, content, mode)

    monkeypatch.setattr(applying, "_write", cut)
    world.write("hostName: rack-5\nnetwork: {interfaces: [a], vlan: 8}\ntime: {servers: [t.example]}\n")
    try:
        await world.boot()
    except KeyboardInterrupt:
        assert done == cut_at
    monkeypatch.setattr(applying, "_write", write)
    world.write("hostName: rack-9\n")
    await world.boot()
    assert world.seen() == straight.seen()


async def test_a_full_disk_is_said_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes, _mode: int) -> None:
        raise OSError(28, "No space left on device")

    await world.boot()
    monkeypatch.setattr(applying, "_write", full)
    world.write(_FULL)
    report = await world.boot()
    assert report.state is State.REFUSED
    assert "full" in report.message


async def test_a_damaged_record_leaves_files_rather_than_taking_the_wrong_ones(world: World) -> None:
    world.write(_FULL)
    await world.boot()
    world.paths.firstboot_record.write_bytes(b"\0\0\0")
    world.write("hostName: rack-4\n")
    assert (await world.boot()).state is State.APPLIED
    assert (world.root / "etc/carmel/carmeld.env").exists()


async def test_the_consoles_password_comes_and_goes(world: World) -> None:
    world.write("console: {passwordHash: $6$salt$hash}\n")
    assert (await world.boot()).state is State.APPLIED
    assert "root:$6$salt$hash:" in (world.root / "etc/shadow").read_text()
    assert (await world.boot()).state is State.UNCHANGED
    world.write("")
    assert (await world.boot()).state is State.APPLIED
    assert "root:*:" in (world.root / "etc/shadow").read_text()
    assert world.runner.calls.count("chpasswd") == 2


async def test_every_copy_has_host_keys_of_its_own(world: World) -> None:
    await world.boot()
    keys = {path.name: path.read_bytes() for path in (world.root / "etc/ssh").iterdir()}
    assert sorted(keys) == sorted(f"ssh_host_{kind}_key{end}" for kind in ("ed25519", "ecdsa") for end in ("", ".pub"))
    assert stat.S_IMODE((world.root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode) == 0o600
    # What a power cut in the middle of the first boot can leave.
    (world.root / "etc/ssh/ssh_host_ecdsa_key").write_bytes(b"")
    await world.boot()
    again = {path.name: path.read_bytes() for path in (world.root / "etc/ssh").iterdir()}
    assert again["ssh_host_ecdsa_key"] not in {b"", keys["ssh_host_ecdsa_key"]}
    assert again["ssh_host_ed25519_key"] == keys["ssh_host_ed25519_key"]


def test_the_report_is_for_everybody_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "carmel" / "firstboot.json"
    Report(State.REFUSED, "a", "b").write(path)
    assert json.loads(path.read_bytes()) == {"state": "Refused", "message": "a", "hint": "b"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_a_boot_at_which_nothing_is_new_is_known_as_such(world: World) -> None:
    def new() -> bool:
        return not nothing_is_new(Record.read(world.paths.firstboot_record), world.root)

    assert new()
    world.write(_FULL)
    await world.boot()
    assert not new()
    changes: list[Callable[[], object]] = [
        lambda: world.write(_FULL + "# another\n"),
        lambda: (world.root / "etc/hostname").write_text("other\n"),
        (world.root / "etc/carmel/carmeld.env").unlink,
        lambda: (world.root / "etc/shadow").write_text("root::1::::::\n"),
        lambda: (world.root / "etc/ssh/ssh_host_ed25519_key").write_bytes(b""),
        lambda: world.paths.firstboot_record.write_bytes(b"{"),
        (world.root / "boot/efi/carmel.yaml").unlink,
    ]
    for change in changes:
        change()
        assert new()
        world.write(_FULL)
        await world.boot()
        assert not new()


async def test_what_was_cut_off_is_never_taken_for_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(_FULL)
    await world.boot()
    write = applying._write

    def cut(path: Path, content: bytes, mode: int) -> None:
        write(path, content, mode)
        if path.name == "hostname":
            raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_write", cut)
    world.write("hostName: rack-7\n")
    with pytest.raises(KeyboardInterrupt):
        await world.boot()
    assert not nothing_is_new(Record.read(world.paths.firstboot_record), world.root)
