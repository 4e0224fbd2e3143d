"""One lab for several modules of tests, each of which finds it as the first one did.

What a module made is removed through the APIs, as users do; what is there afterwards is compared with what was there
before. A lab that is not what it was, and one whose tests failed, is not used again.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import CarmelError, NotFound
from tests.api import Api
from tests.daemon import Daemon, running_daemon
from tests.full.smartnic.pair import LAB, NIC, Pair, lab_pair

Things = frozenset[tuple[str, str, str, str]]
"""Where (``outside``, ``host``, ``nic``), which kind, namespace, name."""

_OF_A_HOST = ("virtualmachines", "volumes", "datastores", "ports", "networks", "firewallpolicies")
_OF_A_NIC = ("firewallpolicies", "ports", "networks", "nvmenamespaces")
_SECONDS = 120.0


class Labs:
    """``home``: makes a folder for the user whose labs these are."""

    def __init__(self, home: Callable[[], Path]) -> None:
        self._home = home
        self._stack = contextlib.ExitStack()
        self._pair: Pair | None = None

    def take(self) -> Pair:
        """The lab, or a new one."""
        if self._pair is None:
            outer = self._stack.enter_context(running_daemon())
            self._stack.callback(_require_nothing_left, outer)
            self._pair = self._stack.enter_context(lab_pair(outer, self._home()))
        return self._pair

    def close(self) -> None:
        """Nobody uses this one again. Of it nothing may be left."""
        self._pair = None
        self._stack.close()


def _require_nothing_left(outer: Daemon) -> None:
    """Between the end of the lab and that of the daemon that ran it."""
    outer.delete_all_vms()
    outer.wait_no_volumes()
    assert outer.leftovers() == []


def contents(pair: Pair) -> Things:
    """What there is, images aside."""
    disks = pair.outer.get("vm", LAB)["spec"]["disks"]
    return frozenset(
        [("outside", "disk", LAB, disk["name"]) for disk in disks]
        + [("outside", "volumes", *_key(one)) for one in _listed(pair.outer, "volumes")]
        + [("host", kind, *_key(one)) for kind in _OF_A_HOST for one in _listed(pair.host, kind)]
        + [("nic", kind, *_key(one)) for kind in _OF_A_NIC for one in _listed(pair.nic, kind)]
        + [("host", "function", *key) for key in _taken(pair)]
    )


def restore(pair: Pair, before: Things) -> None:
    """Remove what came since ``before``. Raises ``AssertionError`` if that cannot be had."""
    remove = functools.partial(_remove, pair, before)
    remove("host", "virtualmachines")
    remove("host", "volumes", lambda one: "export" not in one["spec"])
    remove("host", "datastores", lambda one: one["spec"]["type"] == "NVMe")
    # Drives go before what they show: QEMU would wait for it.
    _unplug(pair, before)
    remove("outside", "volumes")
    for kind in ("volumes", "datastores", "networks", "firewallpolicies"):
        remove("host", kind)
    pair.host.cli("--context", pair.host.name, "smartnic", "sync", NIC, "--yes")
    for kind in _OF_A_NIC:
        remove("nic", kind)
    deadline = time.monotonic() + _SECONDS
    while (now := contents(pair)) != before:
        assert time.monotonic() < deadline, f"left: {sorted(now - before)}; gone: {sorted(before - now)}"
        time.sleep(0.2)
    pair.nic.shell("alias ip=/usr/bin/ip\nip netns list | while read -r name rest; do ip netns del $name; done")


def _remove(
    pair: Pair, before: Things, where: str, kind: str, which: Callable[[JsonObject], bool] = lambda _one: True
) -> None:
    api: Api = {"outside": pair.outer, "host": pair.host, "nic": pair.nic}[where]
    new = [_key(one) for one in _listed(api, kind) if (where, kind, *_key(one)) not in before and which(one)]
    for namespace, name in new:
        with contextlib.suppress(NotFound):
            if kind == "virtualmachines":
                api.patch(kind, name, {"spec": {"powerOffMode": "Hard"}}, namespace)
            if kind == "nvmenamespaces":
                api.patch(kind, name, {"spec": {"function": None}}, None)
            api.delete(kind, name, namespace or None)
    for namespace, name in new:
        api.wait_gone(kind, name, namespace or None)


def _unplug(pair: Pair, before: Things) -> None:
    """Drives out of the host's machine: its kernel is asked first."""
    disks = pair.outer.get("vm", LAB)["spec"]["disks"]
    old = [disk for disk in disks if ("outside", "disk", LAB, disk["name"]) in before]
    if old != disks:
        pair.outer.patch("vm", LAB, {"spec": {"disks": old}})
        names = {disk["name"] for disk in old}
        pair.outer.wait_for(
            "vm", LAB, lambda vm: {one["name"] for one in dig(vm, "status", "disks") or ()} == names, seconds=_SECONDS
        )


def _listed(api: Api, word: str) -> list[JsonObject]:
    items: list[JsonObject] = api.client.list(api.client.kind(word), Selection(None)).get("items") or []
    return items


def _key(obj: JsonObject) -> tuple[str, str]:
    return metadata(obj, "namespace"), metadata(obj, "name")


def _taken(pair: Pair) -> list[tuple[str, str]]:
    """Functions that somebody has, by the host."""
    try:
        listed = dig(pair.host.get("smartnic", NIC, None), "status", "functions") or ()
    except CarmelError:
        return [("", "unknown")]
    return [("", one["id"]) for one in listed if one["state"] == "Plugged"]
