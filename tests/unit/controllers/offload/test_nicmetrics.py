"""The NIC's CPU time comes with the host's."""

from __future__ import annotations

from carmel.controllers.offload.nicmetrics import nic_samples, read_samples
from tests.fakes.nic import FakeNic
from tests.unit.controllers.offload.world import OffloadWorld

TOLD = """# HELP carmel_node_cpu_seconds_total CPU time.
# TYPE carmel_node_cpu_seconds_total counter
carmel_node_cpu_seconds_total{mode="softirq"} 12.5
carmel_node_cpu_count 8
carmel_node_cpu_thread_seconds_total{group="nvme"} 3
carmel_port_received_bytes{port="a"} 5
carmel_node_cpu_seconds_total{mode="\\x1b[2J"} 1
carmel_node_cpu_seconds_total{mode="user"} a lot
"""


def test_only_what_is_about_cpus_is_taken() -> None:
    found = [(one.name, one.labels, one.value) for one in read_samples("dpu", TOLD)]
    assert found == [
        ("carmel_smartnic_cpu_seconds_total", (("smartnic", "dpu"), ("mode", "softirq")), 12.5),
        ("carmel_smartnic_cpu_count", (("smartnic", "dpu"),), 8.0),
        ("carmel_smartnic_cpu_thread_seconds_total", (("smartnic", "dpu"), ("group", "nvme")), 3.0),
        ("carmel_smartnic_cpu_seconds_total", (("smartnic", "dpu"),), 1.0),
    ]


async def test_it_is_asked_of_the_nic(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        assert await nic_samples(world.links) == []
        await world.join(nic)
        await world.ready()
        assert {one.labels[0] for one in await nic_samples(world.links)} == {("smartnic", "dpu")}
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        assert await nic_samples(world.links) == []
