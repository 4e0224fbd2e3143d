"""The machine is read, goes wrong, and the host goes on."""

from __future__ import annotations

from dataclasses import replace

from carmel.controllers.placement import Machine, Means, Surveyor, plain_hardware
from carmel.controllers.placement.surveyor import LOOK_SECONDS
from carmel.errors import Refused
from carmel.hardware.model import Hardware
from carmel.placement.model import Placement
from carmel.resources.base import Condition
from carmel.resources.host import HostPlacementSpec
from carmel.units import GIB
from tests.fakes.clock import FakeClock
from tests.unit.controllers.placement.machines import NOTHING_KEPT, request, two_nodes

SPEC = HostPlacementSpec.model_validate(NOTHING_KEPT)


class Bench:
    """A machine whose reading the test decides."""

    def __init__(self, hardware: Hardware | Exception) -> None:
        self.hardware = hardware
        self.means = Means()
        self.reads = 0
        self.clock = FakeClock()
        self.surveyor = Surveyor(
            Machine(self.read, lambda: self.means, plain_hardware("aarch64", 4096, 2, 4 * GIB)), self.clock
        )

    def read(self) -> Hardware:
        self.reads += 1
        if isinstance(self.hardware, Exception):
            raise self.hardware
        return self.hardware

    async def look(self, spec: HostPlacementSpec = SPEC, *, again: bool = False) -> None:
        await self.surveyor.look(spec, 512, again=again)

    def condition(self, type_: str) -> Condition:
        (found,) = (one for one in self.surveyor.conditions() if one.type == type_)
        return found


async def test_it_is_read_now_and_then() -> None:
    bench = Bench(two_nodes())
    await bench.look()
    await bench.clock.advance(LOOK_SECONDS - 1)
    await bench.look()
    assert bench.reads == 1
    await bench.look(again=True)
    assert bench.reads == 2
    await bench.clock.advance(LOOK_SECONDS)
    await bench.look()
    assert bench.reads == 3
    assert bench.condition("HardwareKnown").status == "True"
    assert bench.surveyor.hardware is not None
    assert [node.cpus for node in bench.surveyor.hardware.numa_nodes] == ["0-3", "4-7"]


async def test_free_memory_that_changes_is_no_news() -> None:
    bench = Bench(two_nodes(huge_pages=512))
    await bench.look()
    generation = bench.surveyor.ledger.generation
    hardware = two_nodes(huge_pages=512)
    nodes = tuple(
        replace(node, free_memory_bytes=GIB, huge_pages=tuple(replace(pool, free=7) for pool in node.huge_pages))
        for node in hardware.nodes
    )
    bench.hardware = replace(hardware, nodes=nodes)
    await bench.look(again=True)
    assert bench.surveyor.ledger.generation == generation
    # The Host tells it all the same.
    assert bench.surveyor.hardware is not None
    (pool,) = bench.surveyor.hardware.numa_nodes[0].huge_pages or []
    assert pool.free == 7


async def test_a_machine_that_was_never_read_is_a_plain_one() -> None:
    bench = Bench(Refused("/sys holds no machine", code="NothingToRead", hint="mount sysfs"))
    await bench.look()
    told = bench.condition("HardwareKnown")
    assert (told.status, told.reason) == ("False", "NothingToRead")
    assert told.message == "/sys holds no machine. Mount sysfs; VMs run, but anywhere"
    assert bench.surveyor.hardware is None
    assert isinstance(bench.surveyor.ledger.reserve(request("w")), Placement)


async def test_what_was_read_before_counts() -> None:
    bench = Bench(two_nodes())
    await bench.look()
    for fault, code in (
        (KeyError("cpu7"), "InternalError"),
        (Refused("gone", code="NothingToRead"), "NothingToRead"),
    ):
        bench.hardware = fault
        await bench.look(again=True)
        assert bench.condition("HardwareKnown").reason == code
        assert "what was read before counts" in bench.condition("HardwareKnown").message
    assert len(bench.surveyor.ledger.ground.hardware.nodes) == 2
    bench.hardware = replace(two_nodes(), cpus=())
    await bench.look(again=True)
    assert bench.condition("HardwareKnown").reason == "HardwareNotRead"
    bench.hardware = two_nodes()
    await bench.look(again=True)
    assert bench.condition("HardwareKnown").status == "True"


async def test_rules_that_contradict_the_machine_are_told_and_left_out() -> None:
    bench = Bench(two_nodes())
    await bench.look(HostPlacementSpec.model_validate({"reservedCpus": "0-99", "reservedMemory": "1Ti"}))
    told = bench.condition("PlacementRulesValid")
    assert (told.status, told.reason) == ("False", "RulesContradictHardware")
    assert "reservedCpus 0-99 leaves no CPU" in told.message
    assert "reservedMemory 1Ti leaves nothing" in told.message
    await bench.look()
    assert bench.condition("PlacementRulesValid").status == "True"


async def test_a_host_that_cannot_dedicate_says_why() -> None:
    bench = Bench(two_nodes())
    bench.means = Means(no_dedicated="carmeld does not run as root")
    await bench.look(HostPlacementSpec.model_validate({"reservedCpus": "0,4", "reservedMemory": "1Gi"}))
    told = bench.surveyor.placement()
    assert (told.reserved_cpus, told.free_cpus, told.no_dedicated) == (
        "0,4",
        "1-3,5-7",
        "carmeld does not run as root",
    )
    assert told.reserved_memory_bytes == GIB


async def test_a_node_that_vanished_is_told() -> None:
    bench = Bench(two_nodes())
    await bench.look()
    bench.surveyor.ledger.reserve(request("w", near=frozenset({1})))
    bench.hardware = plain_hardware("aarch64", 4096, 4, 8 * GIB)
    await bench.look(again=True)
    told = bench.condition("HardwareKnown")
    assert (told.reason, told.message.split()[0]) == ("HardwareGone", "default/w")
