"""Placing is complete and sound: held to an oracle that tries everything, on small machines of every make."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.hardware.model import Hardware
from carmel.placement.model import GuestNodeWish, Placement, Refusal, Request, Rules
from carmel.placement.moving import same_shape
from carmel.placement.occupancy import Occupancy
from carmel.placement.placer import place
from carmel.placement.silicon import survey
from carmel.units import GIB, MIB
from tests.unit.placement.machines import DEDICATED, SHARED, NodeShape, machine, wishes
from tests.unit.placement.oracle import Oracle

HUGE = 2 * MIB
SMALL = 64 * 1024

node_shapes = st.builds(
    NodeShape,
    cores=st.sampled_from([0, 1, 2, 3, 4, 4]),
    threads=st.integers(1, 2),
    memory=st.sampled_from([0, 512 * MIB, GIB, 3 * GIB]),
    cluster=st.sampled_from([None, 2, 3]),
    pools=st.sampled_from([{}, {HUGE: 100}, {HUGE: 7, SMALL: 129}]),
    kinds=st.just(()),
)


@st.composite
def machines(draw: st.DrawFn) -> Hardware:
    shapes = draw(st.lists(node_shapes, min_size=1, max_size=3))
    if draw(st.booleans()):
        shapes = [
            NodeShape(one.cores, one.threads, one.memory, one.cluster, one.pools, kinds)
            for one in shapes
            for kinds in [draw(st.lists(st.integers(0, 1), min_size=one.cores, max_size=one.cores))]
        ]
    return machine(*shapes, offline=draw(st.frozensets(st.integers(1, 12), max_size=3)))


@st.composite
def rules(draw: st.DrawFn, hardware: Hardware) -> Rules:
    cpus = st.frozensets(st.sampled_from([cpu.id for cpu in hardware.cpus] or [0]), max_size=2)
    return Rules(
        reserved_cpus=draw(cpus),
        shared_only_cpus=draw(cpus),
        reserved_memory=draw(st.sampled_from([{}, {0: 100 * MIB}])),
        cpu_overcommit=draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])),
    )


@st.composite
def requests(draw: st.DrawFn, name: str) -> Request:
    vcpus = draw(st.sampled_from([1, 1, 2, 2, 3, 4, 6]))
    page = draw(st.sampled_from([None, None, HUGE, SMALL]))
    unit = 256 * MIB if page is None else HUGE
    memory = unit * draw(st.sampled_from([1, 1, 2, 4, 7, 12]))
    given_nodes: tuple[GuestNodeWish, ...] = ()
    if draw(st.integers(0, 3)) == 0 and memory >= 2 * unit:
        first = draw(st.integers(1, memory // unit - 1)) * unit
        some = draw(st.integers(0, vcpus))
        given_nodes = wishes((some, first), (vcpus - some, memory - first))
    return Request(
        uid=name,
        name=f"default/{name}",
        vcpus=vcpus,
        memory_bytes=memory,
        policy=draw(st.sampled_from([SHARED, DEDICATED, DEDICATED])),
        page_bytes=page,
        near=draw(st.sampled_from([frozenset(), frozenset({0}), frozenset({1, 7})])),
        guest_nodes=given_nodes,
    )


def check(hardware: Hardware, given_rules: Rules, occupancy: Occupancy, wanted: Request) -> Placement | Refusal:
    """The answer, after everything that must hold of it was held to the oracle."""
    answer = place(occupancy.silicon, occupancy, wanted)
    assert answer == place(survey(hardware, given_rules), occupancy, wanted), "the same values, another answer"
    oracle = Oracle(hardware, given_rules, [occupancy.current(uid) for uid in occupancy.placements])
    offered = wanted.page_bytes is None or wanted.page_bytes in occupancy.silicon.page_sizes
    if isinstance(answer, Refusal):
        assert not (offered and oracle.possible(wanted)), f"{wanted} is possible: {answer}"
        assert answer.message
        assert answer.hint
        if answer.permanent:
            assert not (offered and Oracle(hardware, given_rules, []).possible(wanted)), answer
        return answer
    then = occupancy.plus(answer)
    assert oracle.sound([then.current(uid) for uid in then.placements]), answer
    _whole(hardware, answer, wanted)
    _keeps_out(hardware, given_rules, answer)
    back = then.minus(wanted.uid)
    assert (back.taken, back.load, back.memory) == (occupancy.taken, occupancy.load, occupancy.memory)
    again = place(occupancy.silicon, occupancy, same_shape(answer))
    assert isinstance(again, Placement), "it was saved and cannot come back"
    assert [(n.vcpus, n.memory_bytes, n.distances) for n in again.nodes] == [
        (n.vcpus, n.memory_bytes, n.distances) for n in answer.nodes
    ]
    assert again.topology == answer.topology
    return answer


def _whole(hardware: Hardware, answer: Placement, wanted: Request) -> None:
    kinds = {cpu.kind for cpus in answer.vcpus for one in cpus for cpu in hardware.cpus if cpu.id == one}
    assert len(kinds) == 1, "two kinds of CPU"
    assert answer.topology.vcpus == wanted.vcpus == len(answer.vcpus)
    assert sorted(vcpu for node in answer.nodes for vcpu in node.vcpus) == list(range(wanted.vcpus))
    assert sum(node.memory_bytes for node in answer.nodes) == wanted.memory_bytes
    assert all(cpus for cpus in answer.vcpus)
    assert answer.emulator_cpus
    assert answer.reasons
    for node in answer.nodes:
        assert len(node.distances) == len(answer.nodes)
        assert [at for at, distance in enumerate(node.distances) if distance == 10] == [node.id]


def _keeps_out(hardware: Hardware, given_rules: Rules, answer: Placement) -> None:
    """Of what the host keeps; a dedicated VM of all threads of such a core."""
    used = {cpu for cpus in answer.vcpus for cpu in cpus}
    assert not used & given_rules.reserved_cpus
    if answer.request.policy is DEDICATED:
        cores = {cpu for core in hardware.cores if used & set(core.cpus) for cpu in core.cpus}
        assert not cores & (given_rules.reserved_cpus | given_rules.shared_only_cpus)


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_refuses_only_what_is_impossible_and_never_breaks_a_limit(data: st.DataObject) -> None:
    hardware = data.draw(machines())
    given_rules = data.draw(rules(hardware))
    occupancy = Occupancy.of(survey(hardware, given_rules))
    for index in range(data.draw(st.integers(3, 8))):
        answer = check(hardware, given_rules, occupancy, data.draw(requests(f"vm{index}")))
        if isinstance(answer, Placement):
            occupancy = occupancy.plus(answer)
        if occupancy.placements and data.draw(st.integers(0, 4)) == 0:
            occupancy = occupancy.minus(data.draw(st.sampled_from(sorted(occupancy.placements))))
