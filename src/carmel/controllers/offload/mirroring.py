"""Keeps SmartNICs in step with the host: by itself where the NIC trusts it, else by saying what its administrators are
to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from carmel import __version__
from carmel.client.discovery import ResourceType
from carmel.controllers.offload.claims import MANAGER
from carmel.controllers.offload.links import Links
from carmel.controllers.runtime import (
    ControllerSpec,
    Key,
    Resources,
    Runtime,
    condition,
    find_condition,
    key_of,
    set_conditions,
)
from carmel.controllers.runtime.informer import Change
from carmel.resources.base import Condition, JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC, SmartNIC
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS
from carmel.smartnic.link import NicView
from carmel.smartnic.mirror import Difference, HostObjects, compare, wanted_on
from carmel.smartnic.schemas import Schemas, read_schemas
from carmel.smartnic.syncing import make
from carmel.store.protocol import Stored

_GATHER_SECONDS = 0.1
"""A VM that comes is a port, labels and a status in a row; a policy is to be there within a second of its change."""
_WATCHED = (NETWORK, PORT, FIREWALL_POLICY, NAMESPACE)
_KINDS = (NAMESPACES, NETWORKS, POLICIES, PORTS)
_NAMED = 3
"""So many things that are missing are named."""


class Mirroring:
    """Build it before the runtime starts."""

    def __init__(self, runtime: Runtime, links: Links) -> None:
        self._runtime = runtime
        self._links = links
        self._schemas: dict[str, tuple[str, Schemas]] = {}
        """By SmartNIC: the version that they are of, and what it knows."""
        self._resources: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager=MANAGER)
        self._smart_nics = runtime.informer(SMART_NIC)
        self._informers = {kind: runtime.informer(kind) for kind in (*_WATCHED, SMART_NIC)}
        self._controller = runtime.add(
            ControllerSpec(
                name="mirror",
                kind=SMART_NIC,
                reconcile=self.reconcile,
                accepts=lambda _smart_nic: False,
                workers=2,
                on_failure=runtime.show_failure(self._resources, "InSync"),
                retry_permanent_seconds=60.0,
            )
        )
        for kind in _WATCHED:
            self._informers[kind].listen(self._changed)
        self._smart_nics.listen(lambda change: self._look(change.key.name))
        links.listen_for_gist(self._look)

    async def reconcile(self, key: Key) -> float | None:
        smart_nic = await self._resources.find(key)
        if smart_nic is None or smart_nic.metadata.deletion_timestamp is not None:
            return None
        ready = find_condition(smart_nic.status, "Ready")
        view = self._links.view(key.name)
        if ready is None or ready.status != "True" or not view.reached:
            return None
        # Gathered here and read in a thread: a cache is the event loop's.
        known = {kind: list(informer) for kind, informer in self._informers.items()}
        schemas = await self._known_to(key.name, view)
        difference = await asyncio.to_thread(self._difference, key.name, view, known, schemas)
        if view.mirrored and difference.changes:
            await self._links.get(key.name).ask(lambda client: make(client, difference))
            # The link tells what came of it, and that is looked at.
            return None
        shown = _in_sync(key.name, view, difference, smart_nic.metadata.generation)
        now = self._runtime.clock.now()
        await self._resources.update_status(smart_nic, lambda one: set_conditions(one.status, [shown], now))
        return None

    async def _known_to(self, name: str, view: NicView) -> Schemas:
        """What a NIC of another version knows; one of this host's knows all."""
        version = view.facts.version if view.facts is not None else None
        if version is None or version == __version__:
            return {}
        known = self._schemas.get(name)
        if known is None or known[0] != version:
            known = self._schemas[name] = version, await self._links.get(name).ask(read_schemas)
        return known[1]

    def _difference(
        self, name: str, view: NicView, known: Mapping[Kind, Iterable[Stored]], schemas: Schemas
    ) -> Difference:
        read = {kind: [stored.json() for stored in found] for kind, found in known.items()}
        have = HostObjects(
            networks=read[NETWORK],
            ports=read[PORT],
            policies=read[FIREWALL_POLICY],
            namespaces=read[NAMESPACE],
            smart_nics=read[SMART_NIC],
        )
        host = self._runtime.host
        return compare(wanted_on(name, host, have), _there(view), host, schemas)

    def _changed(self, change: Change) -> None:
        """Counters are written all the time, and are nothing that is mirrored."""
        states = [_mirrored_part(one) for one in change.states]
        if len(states) == 2 and states[0] == states[1]:
            return
        for stored in self._smart_nics:
            self._look(key_of(stored).name)

    def _look(self, name: str) -> None:
        self._controller.enqueue_after(Key(None, name), _GATHER_SECONDS)


def _mirrored_part(obj: JsonObject) -> tuple[object, ...]:
    metadata, status = obj["metadata"], obj.get("status") or {}
    told = (
        *(metadata.get(name) for name in ("labels", "deletionTimestamp")),
        *(status.get(name) for name in ("smartNIC", "function", "addresses")),
    )
    return (metadata.get("uid"), metadata.get("generation"), *told)


def _there(view: NicView) -> Mapping[ResourceType, Iterable[JsonObject]]:
    return {kind: view.objects[kind.plural].values() for kind in _KINDS if kind.plural in view.objects}


def _in_sync(name: str, view: NicView, difference: Difference, generation: int | None) -> Condition:
    """What is to be done, and by whom. A host that is not trusted sees no policies, so it cannot speak of them."""
    notes = "; ".join(difference.notes)
    if not difference.changes and difference.left_out:
        said = f"the NIC's version does not know of {'; '.join(difference.left_out)}: upgrade it"
        said = f"{said}. {notes}" if notes else said
        return condition("InSync", "False", "FieldsLeftOut", said, generation=generation)
    if not difference.changes:
        said = notes or ("" if view.mirrored else "networks and ports are; of policies this host is told nothing")
        return condition("InSync", "True", "InSync", said, generation=generation)
    changes = difference.changes
    named = ", ".join(f"{one.verb.value} {one.called}" for one in changes[:_NAMED])
    more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    said = f"to be done by the NIC's administrators, by `carmel smartnic sync {name}`: {named}{more}"
    return condition("InSync", "False", "SyncNeeded", f"{said}. {notes}" if notes else said, generation=generation)
