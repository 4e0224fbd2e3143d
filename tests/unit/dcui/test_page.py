"""The status page: what a person at the machine reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from carmel import __version__
from carmel.dcui.facts import Facts, Problem, reachable_urls
from carmel.dcui.page import render

_NOW = datetime(2026, 11, 23, 9, 8, 7, tzinfo=UTC)
_HOST: dict[str, Any] = {
    "status": {
        "capacity": {"cpus": 160, "memory": "512Gi"},
        "hypervisor": {"accelerator": "kvm"},
        "hardware": {
            "board": {"name": "Mt. Jade"},
            "sockets": [{"id": 0, "cpuModel": "Neoverse-N1"}, {"id": 1, "cpuModel": "Neoverse-N1"}],
            "numaNodes": [{"id": 0}, {"id": 1}],
        },
    }
}
_FACTS = Facts(
    host_name="rack-3",
    addresses=(("eno1", "192.0.2.10"), ("eno1", "2001:db8::2")),
    host=_HOST,
    machines=(("PoweredOff", 1), ("PoweredOn", 12)),
    url="https://127.0.0.1:17443",
    fingerprint="ab" * 32,
    configuration="carmel.yaml is applied",
)


def lines(facts: Facts, **options: Any) -> list[str]:
    return render(facts, _NOW, **{"listens_on": "0.0.0.0", **options}).split("\n")


def value(found: list[str], label: str) -> str:
    return next(line[14:] for line in found if line.startswith(f" {label} "))


def test_a_healthy_host_at_a_glance() -> None:
    found = lines(_FACTS, columns=100)
    assert found[0].startswith(f" Carmel {__version__} on rack-3")
    assert found[0].endswith("2026-11-23 09:08:07 UTC ")
    assert value(found, "Addresses") == "192.0.2.10 (eno1), 2001:db8::2 (eno1)"
    assert value(found, "API") == "https://192.0.2.10:17443"
    assert value(found, "CA SHA-256") == "ab" * 32
    assert value(found, "Machine") == "Mt. Jade, 160 CPUs Neoverse-N1, 2 sockets, 2 NUMA nodes, 512 GiB, KVM"
    assert value(found, "VMs") == "1 off, 12 running"
    assert value(found, "Health") == "good"
    assert "Alt+F2" in found[-1]


@pytest.mark.parametrize(("columns", "rows"), [(80, 25), (40, 10), (240, 67), (80, 4), (20, 1)])
def test_it_fits_the_screen_whatever_there_is_to_say(columns: int, rows: int) -> None:
    problems = tuple(Problem("word " * 30, "hint " * 30) for _ in range(20))
    addresses = tuple((f"eno{number}", f"192.0.2.{number}") for number in range(40))
    found = lines(replace(_FACTS, problems=problems, addresses=addresses), columns=columns, rows=rows)
    assert len(found) <= rows
    assert all(len(line) <= max(columns, 40) for line in found)


def test_what_is_left_out_is_counted() -> None:
    problems = tuple(Problem(f"problem {number}") for number in range(30))
    found = lines(replace(_FACTS, problems=problems))
    left_out = next(line for line in found if "lines more" in line)
    assert sum("problem" in line for line in found) + int(left_out.split()[2]) == 30


def test_problems_come_with_what_to_do() -> None:
    found = lines(replace(_FACTS, problems=(Problem("carmel.yaml is wrong", "correct it"),)))
    assert value(found, "Health") == "1 to look at"
    assert value(found, "  !") == "carmel.yaml is wrong -- correct it"


def test_nobody_can_draw_on_the_screen() -> None:
    hostile = "a\x1b[2J\x07\nb\u202e\x9b31m"
    page = "".join(lines(replace(_FACTS, host_name=hostile, problems=(Problem(hostile, hostile),))))
    assert page.isprintable()
    assert page.isascii()


def test_a_host_that_knows_nothing_yet_says_so() -> None:
    found = lines(Facts(host_name="carmel"))
    assert value(found, "Addresses") == "none"
    assert value(found, "API") == "not there"
    assert value(found, "Machine") == "unknown"


@pytest.mark.parametrize(
    ("listens_on", "urls"),
    [
        ("", []),
        ("127.0.0.1", []),
        ("::1", []),
        ("0.0.0.0", ["https://192.0.2.10:17443"]),
        ("::", ["https://192.0.2.10:17443", "https://[2001:db8::2]:17443"]),
        ("192.0.2.10", ["https://127.0.0.1:17443"]),
    ],
)
def test_where_the_api_is_to_be_found_from_elsewhere(listens_on: str, urls: list[str]) -> None:
    assert reachable_urls(_FACTS, listens_on) == urls


def test_on_this_machine_only() -> None:
    assert value(lines(_FACTS, listens_on=""), "API") == "https://127.0.0.1:17443 (this machine only)"
