"""Metrics in the format that Prometheus reads."""

from __future__ import annotations

import re

from carmel.apiserver.metrics import Metrics, gauge
from tests.unit.apiserver.asgi import call
from tests.unit.apiserver.conftest import Served
from tests.unit.apiserver.test_objects import VMS, fill

LINE = re.compile(r'[a-z_:]+(\{([a-z_]+="(\\.|[^"\\\n])*",?)*\})? (\+Inf|-?[0-9.e+-]+)')


def lines(text: bytes) -> list[str]:
    found = [line for line in text.decode().splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in found)
    return found


def test_counts_and_histograms() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.02, 0.02, 99.0):
        metrics.observe("get", "virtualmachines.carmel.dev", 200, seconds)
    metrics.observe("watch", "virtualmachines.carmel.dev", 200, 1800)
    found = lines(metrics.render())
    labels = 'resource="virtualmachines.carmel.dev",verb="get"'
    name = "carmel_apiserver_request_duration_seconds"
    assert f'carmel_apiserver_requests_total{{code="200",{labels}}} 4' in found
    assert f'{name}_bucket{{{labels},le="0.001"}} 1' in found
    assert f'{name}_bucket{{{labels},le="0.025"}} 3' in found
    assert f'{name}_bucket{{{labels},le="+Inf"}} 4' in found
    assert f"{name}_count{{{labels}}} 4" in found
    assert not any(line.startswith(f"{name}_count") and "watch" in line for line in found)


def test_other_sources_and_hostile_labels() -> None:
    metrics = Metrics()
    metrics.register(lambda: [gauge("carmel_test", "A test.", {(("name", 'a"b\\c\nd'),): 1.5})])
    assert 'carmel_test{name="a\\"b\\\\c\\nd"} 1.5' in lines(metrics.render())


async def test_what_the_server_shows(served: Served) -> None:
    await fill(served.store, 3)
    await call(served.app, "GET", f"{VMS}/nobody")
    found = lines((await call(served.app, "GET", "/metrics")).body)
    assert 'carmel_store_objects{resource="virtualmachines.carmel.dev"} 3' in found
    assert 'carmel_virtual_machines{power_state="Unknown"} 3' in found
    assert 'carmel_apiserver_requests_total{code="404",resource="virtualmachines.carmel.dev",verb="get"} 1' in found
    memory = next(line for line in found if line.startswith("process_resident_memory_bytes"))
    assert int(memory.split()[1]) > 10_000_000


async def test_clients_cannot_make_series(served: Served) -> None:
    before = len(lines((await call(served.app, "GET", "/metrics")).body))
    for index in range(50):
        await call(served.app, "GET", f"/apis/group-{index}/v1/things")
        await call(served.app, f"METHOD{index}", "/version")
        await call(served.app, "GET", f"{VMS}/name-{index}")
    after = len(lines((await call(served.app, "GET", "/metrics")).body))
    assert after - before < 100
