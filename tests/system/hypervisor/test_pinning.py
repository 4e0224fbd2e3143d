"""VMs held at their CPUs and memory nodes, read from the kernel and not from Carmel.

A machine with one node shows where threads are and that memory is bound, not that it moves between nodes: that is
seen in an emulated host with two (tests/system/lab).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from carmel.cpulist import parse_cpu_list
from carmel.errors import Refused
from carmel.hypervisor.config import CpuConfig, GuestNodeConfig, KernelFirmware, MachineConfig, Pinning
from carmel.hypervisor.pinning import Means, pinning_abilities
from carmel.hypervisor.pinning.cgroups import CgroupTree
from carmel.hypervisor.pinning.gate import Gate
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.paths import short_hash
from carmel.storage.build import KernelBundle
from carmel.units import MIB
from tests.fakes.cgroups_contract import check_cpusets
from tests.fakes.moves_contract import check_moves
from tests.system.hypervisor.conftest import ConfigMaker, House, answer, until_prompt
from tests.system.hypervisor.test_adoption import killed_daemon

ABILITIES = pinning_abilities()
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
needs_cgroups = pytest.mark.skipif(ABILITIES.means is not Means.CGROUP, reason=f"no cpusets here: {ABILITIES}")


def pinned(make_config: ConfigMaker, pinning: Pinning, **changes: object) -> MachineConfig:
    node = GuestNodeConfig((0, 1), 192 * MIB, (10,), host_node=0)
    values = {"cpu": CpuConfig(2, 1, 1, 2, 1), "numa": (node,), "pinning": pinning}
    return make_config(**{**values, **changes})


def crosswise(*, exclusive: bool = False) -> Pinning:
    return Pinning(((CPUS[1],), (CPUS[0],)), (CPUS[0],), (0,), exclusive)


def affinities(machine: QemuMachine) -> dict[str, tuple[int, ...]]:
    """Of each thread by its name; QEMU calls vCPUs ``CPU 0/TCG``."""
    found = {}
    for task in (Path("/proc") / str(machine.launch.pid) / "task").iterdir():
        status = (task / "status").read_text()
        match = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
        assert match is not None
        found[f"{(task / 'comm').read_text().strip()} {task.name}"] = parse_cpu_list(match[1])
    return found


def assert_held(machine: QemuMachine, pinning: Pinning) -> None:
    vcpus = 0
    for name, cpus in affinities(machine).items():
        match = re.match(r"CPU (\d+)/", name)
        vcpus += match is not None
        assert cpus == (pinning.vcpus[int(match[1])] if match else pinning.emulator), name
    assert vcpus == len(pinning.vcpus)


def tree(house: House) -> Path:
    assert ABILITIES.hierarchy is not None
    return ABILITIES.hierarchy.mount / f"carmel-{short_hash(str(house.paths.state))}"


def cgroup(house: House, uid: str) -> Path:
    return tree(house) / short_hash(uid)


@pytest.fixture
async def emptied(house: House) -> AsyncIterator[House]:
    """No cgroup is left when the test's VMs are gone."""
    yield house
    await house.close()
    if ABILITIES.means is Means.CGROUP:
        assert not tree(house).exists()


@needs_two_cpus
async def test_every_thread_has_its_cpus_and_memory_its_node(emptied: House, make_config: ConfigMaker) -> None:
    pinning = crosswise()
    machine = await emptied.hypervisor().launch(pinned(make_config, pinning))
    assert machine.pinning == pinning
    assert_held(machine, pinning)
    maps = (Path("/proc") / str(machine.launch.pid) / "numa_maps").read_text()
    (ram,) = [line for line in maps.splitlines() if "bind:0" in line]
    fields = dict(word.split("=") for word in ram.split() if "=" in word)
    assert int(fields["N0"]) == int(fields["anon"]) > 0
    # Those that are made later too.
    await machine.execute("human-monitor-command", {"command-line": "info block"})
    assert_held(machine, pinning)
    await machine.kill("done")


@needs_two_cpus
@needs_cgroups
async def test_a_vm_has_a_cpuset_of_its_own_and_takes_it_along(emptied: House, make_config: ConfigMaker) -> None:
    pinning = dataclasses.replace(crosswise(exclusive=True), vcpus=((CPUS[1],), (CPUS[1],)), emulator=(CPUS[1],))
    machine = await emptied.hypervisor().launch(pinned(make_config, pinning))
    place = cgroup(emptied, machine.record.uid)
    assert (place / "cgroup.procs").read_text().split() == [str(machine.launch.pid)]
    assert parse_cpu_list((place / "cpuset.cpus").read_text()) == (CPUS[1],)
    assert parse_cpu_list((place / "cpuset.mems").read_text()) == (0,)
    status = (Path("/proc") / str(machine.launch.pid) / "status").read_text()
    assert re.search(r"^Mems_allowed_list:\s*0$", status, re.MULTILINE)
    await machine.kill("done")
    assert not place.exists()


@needs_two_cpus
async def test_a_running_vm_is_moved(emptied: House, make_config: ConfigMaker) -> None:
    hypervisor = emptied.hypervisor()
    config = pinned(make_config, crosswise())
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    for cpu in (CPUS[1], CPUS[0]):
        after = Pinning(((cpu,), (cpu,)), (cpu,), (0,))
        await machine.repin(after)
        assert_held(machine, after)
        assert machine.pinning == after
    stream = await hypervisor.open_console(config.uid)
    await answer(stream, b"echo still he''re\n", b"still here")
    await stream.close()
    await machine.kill("done")


@needs_two_cpus
async def test_a_move_that_fails_leaves_everything_as_it_was(emptied: House, make_config: ConfigMaker) -> None:
    pinning = crosswise()
    machine = await emptied.hypervisor().launch(pinned(make_config, pinning), paused=True)
    far = 4000
    for bad in (
        Pinning(((CPUS[0],), (far,)), (CPUS[0],), (0,)),
        Pinning(((CPUS[0],), (CPUS[0],)), (CPUS[0],), (63,)),
        Pinning(((CPUS[0],),), (CPUS[0],), (0,)),
    ):
        with pytest.raises(Refused) as caught:
            await machine.repin(bad)
        assert caught.value.code == "CannotPin"
        assert caught.value.message
        assert_held(machine, pinning)
        assert machine.pinning == pinning
    await machine.kill("done")


@needs_two_cpus
async def test_a_start_at_cpus_that_are_not_there_leaves_nothing(emptied: House, make_config: ConfigMaker) -> None:
    config = pinned(make_config, Pinning(((4000,), (4000,)), (4000,), (0,)))
    with pytest.raises(Refused) as caught:
        await emptied.hypervisor().launch(config)
    assert caught.value.code == "CannotPin"
    assert "4000" in caught.value.message
    assert not emptied.paths.machine(config.uid).launch_record.exists()


async def test_the_contract_that_the_fake_keeps(emptied: House, make_config: ConfigMaker) -> None:
    nowhere = make_config(cpu=CpuConfig(2, 1, 1, 2, 1))
    await check_moves(emptied.hypervisor(), lambda pinning: pinned(make_config, pinning), nowhere, CPUS)


@needs_two_cpus
@needs_cgroups
def test_cgroups_are_as_the_fake_has_them() -> None:
    assert ABILITIES.hierarchy is not None
    process = subprocess.Popen(["sleep", "100"])

    def end() -> None:
        process.kill()
        process.wait()

    try:
        check_cpusets(ABILITIES.hierarchy, f"test-{os.getpid()}", tuple(CPUS), process.pid, end)
    finally:
        end()


@needs_two_cpus
async def test_a_killed_daemons_vm_is_held_again(emptied: House, make_config: ConfigMaker) -> None:
    """Found by the next daemon, and brought to where its record has it."""
    pinning = crosswise()
    config = pinned(make_config, pinning)
    async with killed_daemon(emptied.paths, config) as (_launch_id, pid):
        pass
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        # As if the daemon had not come so far.
        os.sched_setaffinity(int(task.name), CPUS)
    (machine,) = await emptied.hypervisor().adopt()
    assert machine.pinning == pinning
    assert_held(machine, pinning)
    await machine.kill("done")


@needs_cgroups
async def test_what_a_killed_daemon_left_is_removed(emptied: House, make_config: ConfigMaker) -> None:
    """A start that waits at its gate, and a cpuset without a VM."""
    config = pinned(make_config, crosswise())
    machine = await emptied.hypervisor().launch(config, paused=True)
    lost = emptied.paths.runtime / "vm" / "lost"
    lost.mkdir()
    with Gate(lost) as gate:
        waiting = subprocess.Popen(gate.argv(["sleep", "100"]), pass_fds=[gate.descriptor])  # noqa: ASYNC220
    assert ABILITIES.hierarchy is not None
    stale = CgroupTree(ABILITIES.hierarchy, short_hash(str(emptied.paths.state))).make("stale", crosswise())
    second = emptied.hypervisor()
    (found,) = await second.adopt()
    assert found.launch.pid == machine.launch.pid
    assert waiting.wait(10) == -signal.SIGKILL
    assert not stale.directory.exists()
    assert cgroup(emptied, config.uid).exists()
    await found.kill("done")


@pytest.fixture
def users_home(bundle: KernelBundle) -> Iterator[Path]:
    """A directory of the user nobody, with the micro guest."""
    home = Path(tempfile.mkdtemp(prefix="carmel-"))
    for name in ("kernel", "initrd"):
        shutil.copy(getattr(bundle, name), home / name)
    for path in (home, *home.iterdir()):
        shutil.chown(path, "nobody")
    yield home
    shutil.rmtree(home)


@needs_two_cpus
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_user_without_rights(users_home: Path, make_config: ConfigMaker) -> None:
    """Threads have their CPUs, memory its node; nothing is dedicated, and memory does not move."""
    firmware = KernelFirmware(users_home / "kernel", users_home / "initrd", "console=ttyAMA0")
    config = pinned(make_config, crosswise(), firmware=firmware)
    (users_home / "config.pickle").write_bytes(pickle.dumps(config))
    role = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).parent / "rootless_role.py",
        users_home,
        "nobody",
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]},
    )
    async with asyncio.timeout(60):
        said, _ = await role.communicate()
    assert json.loads(said) == {
        "means": "affinity",
        "held": {"0": [CPUS[1]], "1": [CPUS[0]], "others": [CPUS[0]]},
        "bound": True,
        "moved": {"0": [CPUS[0]], "1": [CPUS[0]], "others": [CPUS[0]]},
        "dedicated": "DedicatedCPUsUnavailable",
        "far": "CannotPin",
    }


@needs_two_cpus
async def test_a_vm_without_a_place_is_given_one_while_it_runs(emptied: House, make_config: ConfigMaker) -> None:
    machine = await emptied.hypervisor().launch(make_config(cpu=CpuConfig(2, 1, 1, 2, 1)))
    assert machine.pinning is None
    await machine.repin(crosswise())
    assert_held(machine, crosswise())
    if ABILITIES.means is Means.CGROUP:
        assert cgroup(emptied, machine.launch.uid).is_dir()
    await machine.kill("done")
