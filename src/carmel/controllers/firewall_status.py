"""What a FirewallPolicy's status says: is it loaded, is it for anybody, does it contradict itself, what it decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from carmel.controllers.runtime import condition, error_message, set_conditions
from carmel.errors import CarmelError
from carmel.network.firewall import MAX_ENTRIES, CompiledPolicy, Count, RuleRef
from carmel.resources.base import Condition
from carmel.resources.firewallpolicy import FirewallPolicy, RuleCounter

_SHOWN_COUNTERS = 256
"""The busiest: a policy may have thousands of rules, and an object has a limited size."""
_SHOWN_RULES = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """``selected`` is how many VMs the policy selects, ``ports`` how many of their NICs it is in force on here,
    ``elsewhere`` how many are switched by which SmartNIC, ``crowded`` that a host has no room for it, ``error`` why
    else it is not loaded as it is written."""

    policy: CompiledPolicy
    selected: int
    ports: int
    elsewhere: Mapping[str, int]
    crowded: bool
    counted: Mapping[RuleRef, Count]
    error: CarmelError | None


def describe(policy: FirewallPolicy, seen: Seen, now: datetime) -> None:
    """Write ``seen`` into the policy's status."""
    status = policy.status
    status.observed_generation = policy.metadata.generation
    status.selected_vms = seen.selected
    status.ports = seen.ports
    status.rules = len(policy.spec.ingress or []) + len(policy.spec.egress or [])
    status.counters = [
        RuleCounter(direction=rule.direction, rule=rule.label, packets=count.packets, bytes=count.bytes)
        for rule, count in sorted(seen.counted.items(), key=lambda one: -one[1].packets)[:_SHOWN_COUNTERS]
    ] or None
    set_conditions(status, _conditions(seen, policy.metadata.generation), now)


def _conditions(seen: Seen, generation: int | None) -> Iterator[Condition]:
    yield _ready(seen, generation)
    yield _effective(seen, generation)
    idle = seen.policy.idle
    if not idle:
        yield condition("Consistent", "True", "EveryRuleDecides", generation=generation)
        return
    names = ", ".join(one.place + (f" ({one.name})" if one.name else "") for one in idle[:_SHOWN_RULES])
    more = f" and {len(idle) - _SHOWN_RULES} more" if len(idle) > _SHOWN_RULES else ""
    message = f"earlier rules decide all that {names}{more} would: move them up, or remove them"
    yield condition("Consistent", "False", "RuleNeverDecides", message, generation=generation)


def _ready(seen: Seen, generation: int | None) -> Condition:
    if seen.error is not None:
        closed = " Until then the VMs that it selects get nothing through." if seen.policy.refused else ""
        message = error_message(seen.error) + closed
        return condition("Ready", "False", seen.error.code, message, generation=generation)
    if seen.crowded:
        message = (
            f"the policies asked before it leave no room: a host holds {MAX_ENTRIES:,} matches (peers times ports). "
            "Until there is room the VMs that it selects get nothing through."
        )
        return condition("Ready", "False", "TooManyRules", message, generation=generation)
    return condition("Ready", "True", "Loaded" if seen.ports else "NothingToLoad", generation=generation)


def _effective(seen: Seen, generation: int | None) -> Condition:
    if not seen.selected:
        message = "no VM of this namespace has the labels that vmSelector wants"
        return condition("Effective", "False", "SelectsNothing", message, generation=generation)
    if not seen.policy.spec.directions:
        message = "policyTypes is empty: it governs neither direction"
        return condition("Effective", "False", "NoDirection", message, generation=generation)
    if not seen.ports and seen.elsewhere:
        # Unknown, not False: what is in force on a SmartNIC is not for its host to say.
        message = f"the ports of the VMs that it selects are on {_on_smart_nics(seen.elsewhere)}"
        return condition("Effective", "Unknown", "OnSmartNIC", message, generation=generation)
    if not seen.ports:
        message = (
            "no VM that it selects has a port here that a firewall can be put on: it is off, or in networks of "
            "provider user, which have none"
        )
        return condition("Effective", "False", "NoPortHere", message, generation=generation)
    more = f"here; other ports are on {_on_smart_nics(seen.elsewhere)}" if seen.elsewhere else ""
    return condition("Effective", "True", "InForce", more, generation=generation)


def _on_smart_nics(ports: Mapping[str, int]) -> str:
    names = sorted(name for name in ports if name)
    which = f"SmartNIC {', '.join(names)}" if names else "a SmartNIC"
    ask = f" (`carmel smartnic sync {names[0]}` shows whether it has it)" if names else ""
    return f"{which}, whose own copy of the policy is in force there{ask}"
