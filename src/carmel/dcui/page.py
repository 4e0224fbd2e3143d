"""The status page as text. Pure: facts in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

from carmel import __version__
from carmel.client.objects import dig
from carmel.dcui.facts import Facts, reachable_urls
from carmel.units import human_bytes, parse_bytes

_LABEL = 12
_STATES = {"PoweredOn": "running", "PoweredOff": "off", "Paused": "paused", "Suspended": "suspended"}


def render(facts: Facts, now: datetime, *, columns: int = 80, rows: int = 25, listens_on: str | None = None) -> str:
    """At most ``rows`` lines of at most ``columns`` letters, with a line feed after each but the last.

    What others chose (messages, names) comes without control characters, so that it cannot draw.
    """
    width = max(columns, 40)
    body = [line for part in _parts(facts, listens_on) for line in _wrapped(*part, width)]
    title = f" Carmel {__version__} on {facts.host_name}"
    clock = now.strftime("%Y-%m-%d %H:%M:%S UTC ")
    head = [f"{title}{clock:>{max(width - len(title), 0)}}"[:width], "-" * width]
    foot = ["-" * width, " Log in: Alt+F2 (Alt+F1 comes back here), or ssh with a key of carmel.yaml"[:width]]
    room = max(rows - len(head) - len(foot), 0)
    if len(body) > room:
        body = [*body[: max(room - 1, 0)], f" ... and {len(body) - room + 1} lines more"][:room]
    body += [""] * (room - len(body))
    return "\n".join(_plain(line) for line in [*head, *body, *foot][:rows])


def _parts(facts: Facts, listens_on: str | None) -> Iterator[tuple[str, str]]:
    yield "Addresses", ", ".join(f"{address} ({nic})" for nic, address in facts.addresses) or "none"
    urls = reachable_urls(facts, listens_on)
    yield "API", ", ".join(urls) or (f"{facts.url} (this machine only)" if facts.url else "not there")
    if facts.fingerprint:
        yield "CA SHA-256", facts.fingerprint
    yield "Machine", _machine(facts)
    yield "VMs", ", ".join(f"{count} {_STATES.get(state, state.lower())}" for state, count in facts.machines) or "none"
    if facts.configuration:
        yield "Set up", facts.configuration
    yield "Health", "good" if not facts.problems else f"{len(facts.problems)} to look at"
    for problem in facts.problems:
        yield "  !", f"{problem.message}{f' -- {problem.hint}' if problem.hint else ''}"


def _machine(facts: Facts) -> str:
    """Board, processors, NUMA nodes, memory and accelerator in a line."""
    status = facts.host.get("status") or {}
    hardware = status.get("hardware") or {}
    sockets, nodes = hardware.get("sockets") or [], hardware.get("numaNodes") or []
    board = dig(hardware, "board", "name") or dig(hardware, "board", "product") or dig(status, "system", "board")
    words = [str(board or dig(status, "system", "architecture") or "unknown")]
    cpus = dig(status, "capacity", "cpus")
    model = dig(sockets, 0, "cpuModel") or dig(status, "system", "cpuModel")
    if cpus:
        words.append(f"{cpus} CPUs{f' {model}' if model else ''}")
    if len(sockets) > 1:
        words.append(f"{len(sockets)} sockets")
    if nodes:
        words.append(f"{len(nodes)} NUMA node{'s' if len(nodes) > 1 else ''}")
    memory = dig(status, "capacity", "memory")
    if memory:
        words.append(human_bytes(parse_bytes(memory)))
    accelerator = dig(status, "hypervisor", "accelerator")
    if accelerator:
        words.append(str(accelerator).upper())
    return ", ".join(words)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    room = max(width - _LABEL - 2, 20)
    lines = textwrap.wrap(_plain(text), room, break_long_words=True, break_on_hyphens=False) or [""]
    return [f" {label if index == 0 else '':<{_LABEL}} {line}" for index, line in enumerate(lines)]


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in text)
