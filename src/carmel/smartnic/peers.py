"""Pure: VMs that are peers in a NIC's policies and have ports elsewhere, as Ports that the NIC never plugs in.

A policy names VMs by labels, and the NIC has those of its own ports alone. Of the others it is told what a set of
addresses needs: labels and addresses, those that were given or else those that were seen last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from carmel.client.objects import JsonObject, dig, metadata
from carmel.resources.firewallpolicy import are_peers
from carmel.resources.labelselector import LabelSelector

_NAMING = ("networkRef", "vmRef", "nic", "owner", "mac")
_MOST_ADDRESSES = 64
"""That a Port's spec may have."""
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Peers:
    home: str
    vms: LabelSelector | None
    namespaces: LabelSelector | None


def peers_elsewhere(
    policies: Iterable[JsonObject], ports: Iterable[JsonObject], namespaces: Iterable[JsonObject]
) -> list[JsonObject]:
    """Those of ``ports``, none of which the NIC switches, that have addresses and are peers in ``policies``."""
    labels_of = {metadata(one, "name"): _labels(one) for one in namespaces}
    peers = list(_peers_of(policies))
    return [
        port
        for port in ports
        if addresses_of(port)
        and any(
            are_peers(one.home, one.vms, one.namespaces, (metadata(port, "namespace"), _labels(port)), labels_of)
            for one in peers
        )
    ]


def addresses_of(port: JsonObject) -> list[str]:
    """As the firewall of whoever switches it takes them."""
    return dig(port, "spec", "addresses") or dig(port, "status", "addresses") or []


def remote_spec(port: JsonObject) -> JsonObject:
    """What the NIC's Port says: nothing of how it is switched."""
    spec = port["spec"]
    naming = {name: spec[name] for name in _NAMING if name in spec}
    return {**naming, "remote": True, "addresses": sorted(addresses_of(port))[:_MOST_ADDRESSES]}


def is_remote(port: JsonObject) -> bool:
    return dig(port, "spec", "remote") is True


def _peers_of(policies: Iterable[JsonObject]) -> Iterator[_Peers]:
    """Each once: many rules are about the same VMs."""
    seen = set[tuple[str, str]]()
    for policy in policies:
        home = metadata(policy, "namespace")
        for selectors in _selectors(policy):
            text = json.dumps(selectors, sort_keys=True)
            if (home, text) not in seen:
                seen.add((home, text))
                try:
                    yield _Peers(home, *map(_selector, selectors))
                except ValidationError:
                    # Of a newer version: who that is, is not known here.
                    continue


def _selectors(policy: JsonObject) -> Iterator[tuple[Any, Any]]:
    for direction in ("ingress", "egress"):
        for rule in dig(policy, "spec", direction) or ():
            for peer in rule.get("peers") or ():
                if peer.get("ipBlock") is None:
                    yield peer.get("vmSelector"), peer.get("namespaceSelector")


def _selector(written: Any) -> LabelSelector | None:
    return None if written is None else LabelSelector.model_validate(written)


def _labels(obj: JsonObject) -> Labels:
    labels = dig(obj, "metadata", "labels")
    return labels if isinstance(labels, dict) else {}
