"""NVMe over TCP by the kernel's own files: options, connections, stalls, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.errors import CarmelError
from carmel.hardware.nvme_lookup import space_of, spaces_with_serial
from carmel.hardware.sysroot import Sysroot
from carmel.run import Command, Result
from carmel.smartnic.nvme.fabrics import ChapKeys, Target, connect_options, host_id, host_nqn, read_connections
from carmel.smartnic.nvme.initiator import Initiator
from tests.fakes.fabrics import FakeFabrics, RemoteTarget
from tests.unit.hardware.machines import GIB, Tree

NQN = "nqn.2014-08.org.nvmexpress:uuid:7a1f3c52-8d60-4d55-9b21-2f6a8a0c1a11"
OURS = host_nqn("machine")
TARGET = Target("192.0.2.7", 4420, NQN, OURS)


class Modprobe:
    """Loads the initiator, if there is one to load."""

    def __init__(self, fabrics: FakeFabrics, *, there: bool = True) -> None:
        self.fabrics = fabrics
        self.there = there

    async def run(self, command: Command, *, check: bool = True, on_line: object = None) -> Result:
        assert list(command.argv) == ["modprobe", "nvme-tcp"]
        if not self.there:
            return Result(1, b"", b"modprobe: FATAL: Module nvme-tcp not found.")
        self.fabrics.load()
        return Result(0, b"", b"")


@pytest.fixture
def fabrics(tmp_path: Path) -> FakeFabrics:
    return FakeFabrics(Tree(tmp_path), [RemoteTarget("192.0.2.7", 4420, NQN, {1: GIB, 7: 2 * GIB})])


def initiator(fabrics: FakeFabrics, *, there: bool = True) -> Initiator:
    return Initiator(Modprobe(fabrics, there=there), fabrics.tree.root, fabrics.write)


async def code_of(fabrics: FakeFabrics, target: Target = TARGET, *, there: bool = True) -> tuple[str, bool]:
    with pytest.raises(CarmelError) as raised:
        await initiator(fabrics, there=there).ensure(target, 60)
    return raised.value.code, raised.value.retryable


def test_a_connection_is_kept_for_ever_and_fails_after_the_stall() -> None:
    words = connect_options(TARGET, 30).split(",")
    assert words == [
        f"nqn={NQN}",
        "transport=tcp",
        "traddr=192.0.2.7",
        "trsvcid=4420",
        f"hostnqn={OURS}",
        f"hostid={host_id(OURS)}",
        "ctrl_loss_tmo=-1",
        "fast_io_fail_tmo=30",
        "reconnect_delay=2",
        "keep_alive_tmo=5",
    ]
    secret = connect_options(TARGET, 0, ChapKeys("DHHC-1:00:a:", "DHHC-1:00:b:"))
    assert secret.endswith(
        "fast_io_fail_tmo=0,reconnect_delay=2,keep_alive_tmo=5,dhchap_secret=DHHC-1:00:a:,dhchap_ctrl_secret=DHHC-1:00:b:"
    )


def test_a_nic_is_known_by_one_name_and_its_id_goes_with_it() -> None:
    assert OURS == host_nqn("machine") != host_nqn("another")
    assert OURS.endswith(host_id(OURS))
    assert len(host_id("nqn.2020-01.example:host")) == 36


@pytest.mark.parametrize("multipath", [True, False])
async def test_connected_once_and_its_namespaces_found(fabrics: FakeFabrics, *, multipath: bool) -> None:
    fabrics.multipath = multipath
    ours = initiator(fabrics)
    made = await ours.ensure(TARGET, 60)
    assert made is not None
    assert (made.name, made.target, made.state, made.stall_seconds) == ("nvme0", TARGET, "live", 60)
    assert await ours.ensure(TARGET, 60) == made
    assert await ours.connections() == (made,)
    space = space_of(Sysroot(fabrics.tree.root), "nvme0", 7)
    assert space is not None
    assert (space.device, space.size_bytes, space.block_bytes) == ("/dev/nvme0n2", 2 * GIB, 512)
    assert space_of(Sysroot(fabrics.tree.root), "nvme0", 3) is None
    # A target's is no drive of the NIC.
    serial = (fabrics.tree.root / "sys/class/nvme/nvme0/serial").read_text().strip()
    assert spaces_with_serial(Sysroot(fabrics.tree.root), serial, 1) == ()


async def test_another_stall_is_taken_at_once(fabrics: FakeFabrics) -> None:
    ours = initiator(fabrics)
    await ours.ensure(TARGET, 60)
    await ours.ensure(TARGET, 5)
    (found,) = await ours.connections()
    assert found.stall_seconds == 5


async def test_away_and_back(fabrics: FakeFabrics) -> None:
    ours = initiator(fabrics)
    await ours.ensure(TARGET, 60)
    fabrics.targets[0].up = False
    fabrics.settle()
    away = await ours.ensure(TARGET, 60)
    assert away is not None
    assert away.state == "connecting"
    fabrics.targets[0].up = True
    fabrics.settle()
    back = await ours.ensure(TARGET, 60)
    assert back is not None
    assert back.state == "live"


async def test_disconnected_twice_is_disconnected(fabrics: FakeFabrics) -> None:
    ours = initiator(fabrics)
    await ours.ensure(TARGET, 60)
    other = Target("192.0.2.8", 4420, NQN, OURS)
    await ours.disconnect(other)
    assert len(await ours.connections()) == 1
    await ours.disconnect(TARGET)
    await ours.disconnect(TARGET)
    assert await ours.connections() == ()


async def test_what_does_not_answer_is_asked_again_and_who_is_not_let_in_is_told(fabrics: FakeFabrics) -> None:
    assert await code_of(fabrics, there=False) == ("NoInitiator", False)
    assert await code_of(fabrics, Target("192.0.2.8", 4420, NQN, OURS)) == ("PathAway", True)
    fabrics.targets[0].hosts = {"nqn.2020-01.example:somebody"}
    assert await code_of(fabrics) == ("TargetRefused", True)
    fabrics.targets[0] = RemoteTarget("192.0.2.7", 4420, NQN, {1: GIB}, key="DHHC-1:00:right:")
    assert await code_of(fabrics) == ("TargetRefused", False)


def test_a_kernel_that_says_odd_things_is_read_as_far_as_it_goes(fabrics: FakeFabrics) -> None:
    tree = fabrics.tree
    fabrics.load()
    for number, address in enumerate(["", "traddr=192.0.2.1", "traddr=192.0.2.1,trsvcid=x", "nonsense,,="]):
        tree.write(f"sys/class/nvme/nvme{number}/transport", "tcp\n")
        tree.write(f"sys/class/nvme/nvme{number}/state", "live\n")
        tree.write(f"sys/class/nvme/nvme{number}/address", address)
    tree.write("sys/class/nvme/nvme9/transport", "pcie\n")
    assert read_connections(Sysroot(tree.root)) == ()
