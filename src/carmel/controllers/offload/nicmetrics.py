"""What a NIC's CPUs are spent on, asked of it when somebody asks the host: one place to look at both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from carmel.client.api import Client
from carmel.controllers.offload.links import Links
from carmel.controllers.runtime import Sample
from carmel.errors import CarmelError

_ASKED = "carmel_node_cpu_"
_TOLD = "carmel_smartnic_cpu_"
_SECONDS = 2.0
_LINE = re.compile(r"(?P<name>carmel_node_cpu_[a-z_]+)(?:\{(?P<labels>[^{}\n]*)\})? (?P<value>[0-9.e+-]+)", re.ASCII)
_LABEL = re.compile(r'([a-z_]+)="([A-Za-z0-9 _./-]{0,64})"', re.ASCII)
_MOST_LINES = 500
_HELP = "CPU time of a SmartNIC, as it tells it itself."


async def nic_samples(links: Links) -> list[Sample]:
    """Of all NICs that can be reached; one that does not answer at once is left out."""
    reached = [name for name in links.names() if links.view(name).reached]
    found = await asyncio.gather(*(_ask(links, name) for name in reached))
    return [sample for samples in found for sample in samples]


async def _ask(links: Links, name: str) -> list[Sample]:
    try:
        async with asyncio.timeout(_SECONDS):
            text = await links.get(name).ask(_scrape)
    except (CarmelError, TimeoutError):
        return []
    return list(read_samples(name, text))


def _scrape(client: Client) -> str:
    return client.call("GET", "/metrics", accept="text/plain", seconds=_SECONDS).body.decode("utf-8", "replace")


def read_samples(smart_nic: str, text: str) -> Iterator[Sample]:
    """From Prometheus' text format. What a NIC says is not believed to be short, or to be a number."""
    for line in text.splitlines()[:_MOST_LINES]:
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        name = _TOLD + match["name"].removeprefix(_ASKED)
        labels = tuple(_LABEL.findall(match["labels"] or ""))
        yield Sample(name, "counter", _HELP, name, (("smartnic", smart_nic), *labels), value)
