"""What a build promises whatever its recipe is: cached by key, all or nothing, errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from carmel.errors import Conflict, InsufficientStorage, InternalError, NotFound, Refused, Unavailable
from carmel.run import Command, ProgramFailed, Result
from carmel.storage.build import (
    RECIPES,
    BuildContext,
    DiskImage,
    KernelBundle,
    Package,
    Recipe,
    build,
    build_recipe,
    programs,
)
from carmel.storage.build.cache import ResultCache
from carmel.storage.build.context import Workshop
from carmel.storage.build.files import locked
from carmel.storage.build.packages import parse_simulation
from carmel.storage.build.sandbox import subordinate_ids

SIMULATION = """Reading package lists...
Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.15/oldstable [arm64])
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [arm64]) []
Inst linux-base (4.12.1~deb12u1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [all])
Conf gcc-12-base (12.2.0-14+deb12u1 Debian:12.15/oldstable [arm64])
"""


@dataclass
class ScriptedApt:
    """A ``Runner`` that is apt for these tests: answers a simulation, writes files for a download."""

    simulation: str = SIMULATION
    broken: bool = False
    calls: list[list[str]] = field(default_factory=list)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        words = [str(word) for word in command.argv]
        self.calls.append(words)
        if self.broken and ("update" in words or "download" in words):
            raise ProgramFailed(command, Result(100, b"", b"W: x\nE: Failed to fetch the index\n"))
        if "--simulate" in words:
            return Result(0, self.simulation.encode(), b"")
        if "download" in words and command.cwd is not None and on_line is not None:
            on_line("dlstatus:1:50.0:Retrieving")
            (command.cwd / "a_1_arm64.deb").write_bytes(b"deb")
        return Result(0, b"", b"")

    def count(self, word: str) -> int:
        return sum(word in call for call in self.calls)


@dataclass
class World:
    apt: ScriptedApt
    context: BuildContext
    output: Path
    told: list[tuple[int | None, str]]

    def leftovers(self) -> list[str]:
        return [str(path) for folder in (self.context.work, self.output) for path in folder.iterdir()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr("carmel.storage.build.packages.KEYRING", keyring)
    for name in ("work", "output"):
        (tmp_path / name).mkdir()
    apt, told = ScriptedApt(), list[tuple[int | None, str]]()
    context = BuildContext(
        apt, tmp_path / "cache", tmp_path / "work", lambda *what: told.append(what), "http://mirror.example/debian"
    )
    return World(apt, context, tmp_path / "output", told)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def recipe(make: Callable[[Workshop], Awaitable[KernelBundle | DiskImage]]) -> Recipe:
    return Recipe("test", "a test", "Kernel", 1, ("thing",), (), lambda: b"inputs", make)


async def make_kernel(workshop: Workshop) -> KernelBundle:
    assert [path.name for path in workshop.archives.iterdir()] == ["a_1_arm64.deb"]
    kernel, initrd = workshop.directory / "kernel", workshop.directory / "initrd"
    kernel.write_bytes(b"K" * 10)
    initrd.write_bytes(b"I" * 5)
    return KernelBundle(kernel, initrd, "console=x")


async def test_the_second_build_comes_from_the_cache(world: World, tmp_path: Path) -> None:
    made = recipe(make_kernel)
    first = await build_recipe(made, world.context, world.output)
    assert first == KernelBundle(world.output / "kernel", world.output / "initrd", "console=x")
    assert first.kernel.read_bytes() == b"K" * 10
    assert world.told[-1] == (100, "done")
    other = tmp_path / "other"
    other.mkdir()
    second = await build_recipe(made, world.context, other)
    assert isinstance(second, KernelBundle)
    assert second.initrd.read_bytes() == b"I" * 5
    assert (world.apt.count("download"), world.apt.count("update"), world.apt.count("--simulate")) == (1, 1, 1)
    assert list(world.context.work.iterdir()) == []


async def test_a_disk_goes_through_the_cache_too(world: World) -> None:
    async def make(workshop: Workshop) -> DiskImage:
        path = workshop.directory / "disk.qcow2"
        path.write_bytes(b"Q")
        return DiskImage(path, "qcow2", 2**31)

    assert await build_recipe(recipe(make), world.context, world.output) == DiskImage(
        world.output / "disk.qcow2", "qcow2", 2**31
    )


async def test_only_the_last_results_of_a_recipe_are_kept(world: World, tmp_path: Path) -> None:
    for version in range(4):
        output = tmp_path / f"output{version}"
        output.mkdir()
        # The first is used all the time, so it is not the oldest.
        for made in (replace(recipe(make_kernel), version=version), replace(recipe(make_kernel), version=0)):
            for path in output.iterdir():
                path.unlink()
            await build_recipe(made, world.context, output)
    kept = names(world.context.cache / "results")
    current = [
        f"test-{await replace(recipe(make_kernel), version=version).cache_key(world.context)}" for version in (0, 3)
    ]
    assert kept == sorted(current)


async def test_a_result_in_use_is_not_removed(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    for name in ("test-" + "a" * 32, "test-" + "b" * 32, "other-" + "c" * 32):
        (tmp_path / "results" / name).mkdir(parents=True)
    async with locked(cache.lock_path("test-" + "a" * 32)):
        cache.prune("test", keep=0)
    assert names(tmp_path / "results") == ["other-" + "c" * 32, "test-" + "a" * 32]


async def test_what_came_with_the_host_is_taken_and_not_built(world: World, tmp_path: Path) -> None:
    ready_made = tmp_path / "share/carmel/images"
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"K")
    initrd.write_bytes(b"I")
    ResultCache(ready_made).put("micro", KernelBundle(kernel, initrd, "console=y"))
    here = replace(world.context, ready_made=ready_made, mirror=None)
    bundle = await build("micro", here, world.output)
    assert bundle == KernelBundle(world.output / "kernel", world.output / "initrd", "console=y")
    assert world.apt.calls == []
    with pytest.raises(Conflict):
        await build("micro", here, world.output)
    # Who names a mirror wants a build from there: this one fails for want of packages.
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InternalError, match="the packages hold no kernel"):
        await build("micro", replace(here, mirror="http://mirror.example/debian"), other)
    assert world.apt.count("download") == 1


async def test_two_builds_at_once_make_it_once(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    made = recipe(make_kernel)
    await asyncio.gather(*(build_recipe(made, world.context, output) for output in (world.output, other)))
    assert world.apt.count("download") == 1
    assert names(other) == names(world.output) == ["initrd", "kernel"]


@pytest.mark.parametrize("moment", ["making", "keeping", "delivering"])
async def test_cancelled_leaves_nothing(world: World, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = asyncio.Event()

    async def make(workshop: Workshop) -> KernelBundle:
        result = await make_kernel(workshop)
        if moment == "making":
            there.set()
            await asyncio.Event().wait()
        return result

    loop = asyncio.get_running_loop()

    def slowly(real: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object) -> object:
            loop.call_soon_threadsafe(there.set)
            assert cancelled.wait(10)
            return real(*args)

        return wrapped

    cancelled = threading.Event()
    if moment != "making":
        method = {"keeping": "put", "delivering": "deliver"}[moment]
        monkeypatch.setattr(ResultCache, method, slowly(getattr(ResultCache, method)))
    task = asyncio.create_task(build_recipe(recipe(make), world.context, world.output))
    await asyncio.wait_for(there.wait(), 10)
    task.cancel()
    # The thread goes on only after the cancellation has arrived.
    loop.call_soon(loop.call_soon, cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.leftovers() == []


async def test_a_full_disk_is_said_so_and_leaves_nothing(world: World) -> None:
    async def make(workshop: Workshop) -> KernelBundle:
        await make_kernel(workshop)
        raise ProgramFailed(Command(["mkfs.ext4"]), Result(1, b"", b"write: No space left on device\n"))

    with pytest.raises(InsufficientStorage) as caught:
        await build_recipe(recipe(make), world.context, world.output)
    assert caught.value.code == "DiskFull"
    assert world.leftovers() == []


async def test_a_copy_that_fails_half_way_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        if target.parent.name.startswith("build-") and target.name == "kernel":
            raise OSError(28, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("carmel.storage.build.cache.copy", full)
    with pytest.raises(InsufficientStorage):
        await build_recipe(recipe(make_kernel), world.context, world.output)
    assert world.leftovers() == []


async def test_without_a_mirror_older_lists_will_do(world: World, tmp_path: Path) -> None:
    await build_recipe(recipe(make_kernel), world.context, world.output)
    stamp = world.context.cache / "apt-bookworm-arm64/updated"
    release = stamp.parent / "lists/x_InRelease"
    release.write_text("Suite: x")
    os.utime(stamp, (0, 0))
    world.apt.broken = True
    other = tmp_path / "other"
    other.mkdir()
    await build_recipe(recipe(make_kernel), world.context, other)
    assert any("does not answer" in message for _, message in world.told)


async def test_without_lists_and_mirror_it_says_so(world: World) -> None:
    world.apt.broken = True
    with pytest.raises(Unavailable) as caught:
        await build_recipe(recipe(make_kernel), world.context, world.output)
    assert caught.value.code == "MirrorUnavailable"
    assert "Failed to fetch the index" in caught.value.message
    assert caught.value.retryable
    assert world.leftovers() == []


async def test_a_missing_keyring_is_refused(world: World) -> None:
    (world.output.parent / "keyring.gpg").unlink()
    with pytest.raises(Refused) as caught:
        await build_recipe(recipe(make_kernel), world.context, world.output)
    assert caught.value.code == "KeyringMissing"


async def test_the_output_must_be_an_empty_directory(world: World) -> None:
    (world.output / "mine").touch()
    with pytest.raises(Conflict):
        await build("micro", world.context, world.output)
    assert names(world.output) == ["mine"]
    with pytest.raises(Conflict):
        await build("micro", world.context, world.output / "absent")


async def test_unknown_recipes_are_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="mikro") as caught:
        await build("mikro", world.context, world.output)
    assert caught.value.hint == f"there are: {', '.join(sorted(RECIPES))}"


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_program", lambda name: None)
    with pytest.raises(Refused) as caught:
        programs.require(["mcopy", "qemu-img", "mmd"])
    assert caught.value.code == "ProgramMissing"
    assert "mcopy, mmd, qemu-img" in caught.value.message
    assert "mtools qemu-utils" in (caught.value.hint or "")


def test_the_key_is_of_versions_and_inputs_and_not_of_order() -> None:
    one, two = Package("a", "1", "arm64"), Package("b", "2", "all")
    made = recipe(make_kernel)
    key = made.key_of([one, two])
    assert key == made.key_of([two, one])
    others = [
        made.key_of([one]),
        made.key_of([one, replace(two, version="3")]),
        replace(made, version=2).key_of([one, two]),
        replace(made, suite="trixie").key_of([one, two]),
        replace(made, inputs=lambda: b"other").key_of([one, two]),
        replace(made, name="x").key_of([one, two]),
    ]
    assert len({key, *others}) == 7


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_recipes_have_a_stable_key(name: str) -> None:
    assert RECIPES[name].key_of([]) == RECIPES[name].key_of([])
    assert RECIPES[name].name == name


def test_a_simulation_is_read() -> None:
    assert parse_simulation(SIMULATION) == [
        Package("gcc-12-base", "12.2.0-14+deb12u1", "arm64"),
        Package("libc6", "2.36-9+deb12u14", "arm64"),
        Package("linux-base", "4.12.1~deb12u1", "all"),
    ]


def test_subordinate_ids_need_the_whole_range(tmp_path: Path) -> None:
    table = tmp_path / "subuid"
    table.write_text("ann:100000:65536\nbob:1:10\n1003:300000:65535\nbroken\n")
    assert subordinate_ids(table, "ann", 1001) == 100000
    assert subordinate_ids(table, "bob", 1002) is None
    assert subordinate_ids(table, "cid", 1003) == 300000
    assert subordinate_ids(tmp_path / "absent", "ann", 1001) is None
