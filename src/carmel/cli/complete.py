"""What the shell offers after TAB: names from the server. Silent when there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from carmel.client.contexts import context_names
from carmel.client.objects import JsonObject, dig
from carmel.errors import CarmelError
from carmel.units import format_bytes

if TYPE_CHECKING:
    from carmel.cli.session import Session

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def complete_contexts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(context_names(), incomplete)


def complete_namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "namespaces"), incomplete)


def complete_vms(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "virtualmachines"), incomplete)


def complete_images(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "images"), incomplete)


def complete_hosts(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "hosts"), incomplete)


def complete_networks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "networks"), incomplete)


def complete_devices(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The NVMe drives and NICs of the hosts, and the PCI devices once an address is begun: there are many."""
    return _starting(_device_names(ctx, addresses=":" in incomplete), incomplete)


def complete_page_sizes(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _starting(_page_sizes(ctx), incomplete)


def complete_boards(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from carmel.hardware.boards import catalogue  # reads all boards' facts: only for TAB

    return _starting(list(catalogue()), incomplete)


def complete_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completes the arguments ``KIND NAME...``."""
    given = ctx.params.get(param.name or "") or ()
    words = [given] if isinstance(given, str) else list(given)
    return _starting(_names(ctx, words[0]) if words else _kinds(ctx), incomplete)


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _session(ctx: click.Context) -> Session:
    from carmel.cli.session import open_session  # its options complete by this module

    return open_session(ctx.params.get("context_name"), ctx.params.get("namespace"))


def _kinds(ctx: click.Context) -> list[str]:
    try:
        return [one.singular for one in _session(ctx).client.discovery.all()]
    except (CarmelError, OSError):
        return []


def _hardware(ctx: click.Context) -> list[JsonObject]:
    try:
        session = _session(ctx)
        kind = session.client.kind("hosts")
        listed = session.client.list(kind, session.select(kind)).get("items") or []
    except (CarmelError, OSError):
        return []
    return [dig(host, "status", "hardware") or {} for host in listed]


def _device_names(ctx: click.Context, *, addresses: bool) -> list[str]:
    kinds = (("pci", "address"),) if addresses else (("nvme", "name"), ("nics", "name"))
    return [str(one.get(field)) for found in _hardware(ctx) for kind, field in kinds for one in found.get(kind) or ()]


def _page_sizes(ctx: click.Context) -> list[str]:
    sizes = {pool.get("sizeBytes") for found in _hardware(ctx) for pool in found.get("hugePages") or ()}
    return [format_bytes(size) for size in sorted(size for size in sizes if isinstance(size, int))]


def _names(ctx: click.Context, word: str) -> list[str]:
    try:
        session = _session(ctx)
        kind = session.client.kind(word)
        return [row.name for row in session.client.table(kind, session.select(kind)).rows]
    except (CarmelError, OSError):
        return []
