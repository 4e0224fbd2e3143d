"""What a FirewallPolicy's status says: is it loaded, is it for anybody, does it contradict itself, what it decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from carmel.controllers.firewall_policies import Known
from carmel.controllers.runtime import Key, condition, error_message, set_conditions
from carmel.errors import CarmelError
from carmel.network.firewall import MAX_ENTRIES, CompiledPolicy, Count, LabelledVm, PolicyRef, RuleRef, Ruleset
from carmel.resources.base import Condition, JsonObject
from carmel.resources.firewallpolicy import FirewallPolicyStatus, RuleCounter
from carmel.store.protocol import Stored

_SHOWN_COUNTERS = 256
"""The busiest: a policy may have thousands of rules, and an object has a limited size."""
_SHOWN_RULES = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """``selected`` is how many VMs the policy selects, ``ports`` how many of their NICs it is in force on here,
    ``elsewhere`` how many are switched by which SmartNIC, ``weight`` how many matches it makes, ``error`` why nothing
    is loaded as it is written."""

    policy: CompiledPolicy
    selected: int
    ports: int
    elsewhere: Mapping[str, int]
    weight: int
    counted: Mapping[RuleRef, Count]
    error: CarmelError | None


def seen_of(
    compiled: Mapping[Key, Known],
    ruleset: Ruleset,
    vms: Iterable[LabelledVm],
    counted: Mapping[RuleRef, Count],
    error: CarmelError | None,
) -> dict[Key, Seen]:
    """Of each policy what came of it."""
    of_namespace: dict[str | None, list[LabelledVm]] = {}
    for vm in vms:
        of_namespace.setdefault(vm.namespace, []).append(vm)
    counts: dict[PolicyRef, dict[RuleRef, Count]] = {}
    for rule, count in counted.items():
        counts.setdefault(rule.policy, {})[rule] = count
    here, elsewhere = Counter[PolicyRef](), dict[PolicyRef, Counter[str]]()
    for rules in ruleset.ports.values():
        for ref in {*(rules.ingress or ()), *(rules.egress or ())}:
            if rules.port.interface is not None:
                here[ref] += 1
            elif rules.port.smart_nic is not None:
                elsewhere.setdefault(ref, Counter())[rules.port.smart_nic] += 1
    return {
        key: Seen(
            one.policy,
            len({vm.name for vm in of_namespace.get(key.namespace, ()) if one.policy.vm_selector.matches(vm.labels)}),
            here[one.policy.ref],
            elsewhere.get(one.policy.ref, {}),
            one.weight,
            counts.get(one.policy.ref, {}),
            error,
        )
        for key, one in compiled.items()
    }


def status_write(stored: Stored, seen: Seen, now: datetime) -> JsonObject | None:
    """What to store for the policy's status to say what was ``seen``; ``None`` if it does.

    Its rules are not looked into: a policy with thousands of them would take a tenth of a second.
    """
    policy = stored.json()
    spec, metadata = policy.get("spec") or {}, policy["metadata"]
    status = FirewallPolicyStatus.model_validate(policy.get("status") or {})
    before = status.to_json()
    rules = sum(len(spec.get(field) or ()) for field in ("ingress", "egress"))
    _describe(status, metadata.get("generation"), rules, seen, now)
    if (after := status.to_json()) == before:
        return None
    known = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion") if name in metadata}
    return {"apiVersion": policy.get("apiVersion"), "kind": policy.get("kind"), "metadata": known, "status": after}


def _describe(status: FirewallPolicyStatus, generation: int | None, rules: int, seen: Seen, now: datetime) -> None:
    status.observed_generation = generation
    status.selected_vms = seen.selected
    status.ports = seen.ports
    status.rules = rules
    status.counters = [
        RuleCounter(direction=rule.direction, rule=rule.label, packets=count.packets, bytes=count.bytes)
        for rule, count in sorted(seen.counted.items(), key=lambda one: -one[1].packets)[:_SHOWN_COUNTERS]
    ] or None
    set_conditions(status, _conditions(seen, generation), now)


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
        return condition("Ready", "False", seen.error.code, error_message(seen.error), generation=generation)
    if seen.policy.refused:
        before = "" if seen.weight > MAX_ENTRIES else ", and those of the policies asked before it leave too few"
        message = (
            f"it makes {seen.weight:,} matches (peers times ports), a host holds {MAX_ENTRIES:,}{before}. Until there "
            "is room the VMs that it selects get nothing through: put addresses into fewer, larger networks, or ports "
            "into ranges."
        )
        return condition("Ready", "False", "TooManyRules", message, generation=generation)
    return condition("Ready", "True", "Loaded" if seen.ports else "NothingToLoad", generation=generation)


def _effective(seen: Seen, generation: int | None) -> Condition:
    if not seen.selected:
        message = "no VM of this namespace has the labels that vmSelector wants"
        return condition("Effective", "False", "SelectsNothing", message, generation=generation)
    if not seen.policy.chains:
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
