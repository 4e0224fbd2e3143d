"""``carmel top``: what two readings say of host and NIC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carmel.cli.top import table
from carmel.cli.top_figures import Spent, read_metrics, spent
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World


def told(at: float, *, nic: bool = True) -> str:
    """After ``at`` seconds: a host with 4 CPUs, 2 of them busy, half of that in guests; a NIC with 8, one busy."""
    lines = [
        f'carmel_node_cpu_seconds_total{{mode="user"}} {1.25 * at}',
        f'carmel_node_cpu_seconds_total{{mode="system"}} {0.5 * at}',
        f'carmel_node_cpu_seconds_total{{mode="softirq"}} {0.25 * at}',
        f'carmel_node_cpu_seconds_total{{mode="idle"}} {2 * at}',
        "carmel_node_cpu_count 4",
        f"carmel_node_cpu_guest_seconds_total {0.75 * at}",
        f'carmel_node_cpu_thread_seconds_total{{group="vhost"}} {0.3 * at}',
        f'carmel_node_cpu_thread_seconds_total{{group="qemu"}} {0.4 * at}',
        f'carmel_node_cpu_thread_seconds_total{{group="emulated guests"}} {0.25 * at}',
        "process_cpu_seconds_total 7",
    ]
    if nic:
        lines += [
            f'carmel_smartnic_cpu_seconds_total{{smartnic="dpu",mode="softirq"}} {at}',
            f'carmel_smartnic_cpu_seconds_total{{smartnic="dpu",mode="idle"}} {7 * at}',
            'carmel_smartnic_cpu_count{smartnic="dpu"} 8',
        ]
    return "\n".join(lines) + "\n"


def between(first: str, second: str) -> list[Spent]:
    return spent("server-1", read_metrics(first), read_metrics(second))


def test_host_and_nic_side_by_side() -> None:
    host, nic = between(told(100), told(110))
    assert (host.name, host.is_nic, host.cpus) == ("server-1", False, 4)
    assert (host.busy, host.guests, host.outside, host.interrupts) == pytest.approx((2.0, 1.0, 1.0, 0.25))
    assert [group for group, _ in host.threads] == ["qemu", "vhost"]
    assert (nic.name, nic.is_nic) == ("dpu", True)
    assert (nic.busy, nic.outside) == pytest.approx((1.0, 1.0))


def test_the_table() -> None:
    assert list(table(between(told(100), told(110)))) == [
        "                 host server-1   SmartNIC dpu",
        "CPUs                         4              8",
        "busy                      2.00           1.00",
        "guests                    1.00              -",
        "outside guests            1.00           1.00",
        "  interrupts              0.25           1.00",
        "  qemu                    0.40              -",
        "  vhost                   0.30              -",
    ]


def test_a_nic_that_was_started_anew_is_left_out_once() -> None:
    assert [
        one.name
        for one in between(told(100), told(110).replace('="dpu",mode="softirq"} 110', '="dpu",mode="softirq"} 1'))
    ] == ["server-1"]


def test_guests_that_ended_meanwhile_take_nothing_back() -> None:
    host = between(told(100), told(110).replace('="emulated guests"} 27.5', '="emulated guests"} 1'))[0]
    assert (host.guests, host.outside) == pytest.approx((0.75, 1.25))


def test_one_that_came_meanwhile_is_told_next_time() -> None:
    assert [one.name for one in between(told(100, nic=False), told(110))] == ["server-1"]


def test_the_same_twice_is_no_figure() -> None:
    assert between(told(100), told(100)) == []


def test_what_is_no_metric_is_left_out() -> None:
    assert (
        read_metrics('carmel_node_cpu_seconds_total{mode="user"} much\ncarmel_node_cpu_x{ 5\n\n# carmel_node_cpu_')
        == {}
    )


@pytest.fixture
def carmel(home: Path, lone: Carmel, world: World, monkeypatch: pytest.MonkeyPatch) -> Carmel:
    monkeypatch.setenv("CARMEL_RUN_DIR", str(world.folder))
    return lone


def test_by_command(carmel: Carmel) -> None:
    """This small host measures nothing: there is a table all the same, with no machine in it."""
    assert json.loads(carmel("top", "--once", "--interval", "0.1", "-o", "json").out) == []
    refused = carmel("top", "--once", "-o", "yaml")
    assert refused.status == 2
