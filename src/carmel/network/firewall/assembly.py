"""Which policies each port has, and whose addresses are in which set: compiled policies and ports to a ``Ruleset``.

It is done anew whenever a VM comes or goes. Most selectors want a label to have a value, so that each is asked about
those only that have it, and not each policy about each port.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from carmel.network.firewall.compile import CompiledPolicy, PortRules, Ruleset
from carmel.network.firewall.matches import AddressBlocks, Network, PeerSet, SelectedVms
from carmel.network.firewall.model import Address, PolicyRef, PortBinding
from carmel.resources.firewallpolicy import Direction, are_peers
from carmel.resources.labelselector import LabelSelector

Labels = Mapping[str, str]
Label = tuple[str, str]


def assemble(
    policies: Iterable[CompiledPolicy], ports: Sequence[PortBinding], namespaces: Mapping[str, Labels]
) -> Ruleset:
    """``namespaces``: their labels by their names."""
    ordered = sorted(policies, key=lambda one: one.order)
    of_port = _PoliciesOfPorts(ordered)
    rules = {port.key: PortRules(port, *of_port.asked(port)) for port in ports}
    used = {(ref, direction) for one in rules.values() for direction in Direction for ref in one.of(direction) or ()}
    chains = {
        (policy.ref, direction): chain
        for policy in ordered
        for direction, chain in policy.chains.items()
        if (policy.ref, direction) in used
    }
    there = {ref for ref, _ in used}
    wanted = {name: peers for policy in ordered if policy.ref in there for name, peers in policy.sets.items()}
    members = _Members(ports, namespaces)
    sets = {name: members.of(peers) for name, peers in wanted.items()}
    return Ruleset(rules, chains, sets, frozenset(policy.ref for policy in ordered if policy.refused))


def _wanted_label(selector: LabelSelector | None) -> Label | None:
    """One label that all have whom the selector matches; ``None``: there is none."""
    return next(iter(selector.match_labels.items()), None) if selector and selector.match_labels else None


class _PoliciesOfPorts:
    """``ordered`` is the order in which policies are asked."""

    def __init__(self, ordered: Sequence[CompiledPolicy]) -> None:
        self._wanting: dict[tuple[str, Label | None], list[tuple[int, CompiledPolicy]]] = {}
        for place, policy in enumerate(ordered):
            key = policy.ref.namespace, _wanted_label(policy.vm_selector)
            self._wanting.setdefault(key, []).append((place, policy))

    def asked(self, port: PortBinding) -> tuple[tuple[PolicyRef, ...] | None, tuple[PolicyRef, ...] | None]:
        """For each direction; ``None``: no policy selects it for that one."""
        found = [
            one
            for label in (None, *port.labels.items())
            for one in self._wanting.get((port.key.namespace, label), ())
            if one[1].vm_selector.matches(port.labels)
        ]
        found.sort(key=lambda one: one[0])
        ingress, egress = (
            tuple(policy.ref for _, policy in found if direction in policy.chains) or None for direction in Direction
        )
        return ingress, egress


class _Members:
    def __init__(self, ports: Sequence[PortBinding], namespaces: Mapping[str, Labels]) -> None:
        self._namespaces = namespaces
        self._having: dict[Label | None, list[PortBinding]] = {None: list(ports)}
        for port in ports:
            for label in port.labels.items():
                self._having.setdefault(label, []).append(port)

    def of(self, peers: PeerSet) -> frozenset[Network]:
        if isinstance(peers, AddressBlocks):
            return peers.networks
        return frozenset(
            _alone(address)
            for port in self._having.get(_wanted_label(peers.vms), ())
            if self._is_member(peers, port)
            for address in port.addresses
        )

    def _is_member(self, peers: SelectedVms, port: PortBinding) -> bool:
        vm = port.key.namespace, port.labels
        return are_peers(peers.namespace, peers.vms, peers.namespaces, vm, self._namespaces)


@functools.lru_cache(maxsize=8192)
def _alone(address: Address) -> Network:
    return ipaddress.ip_network(address)
