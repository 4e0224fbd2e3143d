"""``ports/binding`` and ``nvmenamespaces/binding``: which of a SmartNIC's functions is plugged into a port, or shows a
namespace.

``POST .../ports/NAME/binding`` with ``{"function": "pf0vf3"}`` plugs it in, ``{"function": null}`` unplugs what is in.
That is all that a host may change on a SmartNIC that trusts it no further: it sets ``spec.function`` of a Port that is
there, and nothing else of it. The same goes for an NVMeNamespace, of which the host does not even see where its blocks
come from. As with ``pods/binding`` of Kubernetes, ``metadata.uid`` and ``metadata.resourceVersion``
in the body make it apply to that very port, or that very state of it, alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from starlette.responses import Response

from carmel.apiserver.hostnames import GROUP as HOSTS
from carmel.apiserver.identity import User
from carmel.apiserver.negotiation import wanted
from carmel.apiserver.reading import object_response
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.status import JSON, success
from carmel.apiserver.writing import read_object, write_options
from carmel.errors import BadRequest, Conflict, Forbidden, NotFound, Refused
from carmel.resources.base import JsonObject, Resource
from carmel.resources.kinds import Kind
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.port import HOST_OWNER, PORT
from carmel.resources.smartnic import SMART_NIC, FunctionKind, FunctionStatus, SmartNIC
from carmel.store.protocol import Store, Stored, WriteOptions

_FIELDS = frozenset({"apiVersion", "kind", "metadata", "function"})
_ATTEMPTS = 8

Audit = Callable[[Kind, Resource, str, str], None]
"""(kind, object, reason, message): keep it as an Event."""


@dataclass(frozen=True, slots=True)
class Bindable:
    """A kind with ``spec.function``. ``noun``: what people call it. ``shown``: the answer is the object itself."""

    kind: Kind
    functions: FunctionKind
    noun: str
    shown: bool = True


_BINDABLE = {
    one.kind: one
    for one in (
        Bindable(PORT, FunctionKind.NET, "port"),
        Bindable(NVME_NAMESPACE, FunctionKind.NVME, "namespace", shown=False),
    )
}


@dataclass(frozen=True, slots=True)
class Binding:
    """What is asked for. ``resource_version``: of that state of the port only."""

    function: str | None
    uid: str | None = None
    resource_version: str | None = None


class Bindings:
    """``smart_nic`` is the name of the SmartNIC whose store this is. Bindings are made one by one, for a function is in
    one port."""

    def __init__(self, store: Store, smart_nic: str, audit: Audit) -> None:
        self._store = store
        self._smart_nic = smart_nic
        self._audit = audit
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, info: RequestInfo, request: Request, user: User) -> Response:
        """The object as it is afterwards, where the host may read it."""
        assert info.kind is not None, "bindings are subresources"
        what = _BINDABLE[info.kind]
        shape = wanted(request.headers.get("accept", ""))
        options = write_options(request)
        binding = read_binding(await read_object(request))
        async with self._one_at_a_time:
            stored = await self._bind(what, info.namespace, info.name, binding, user, options)
        if what.shown:
            return object_response(stored, shape, request, 201)
        done = success(kind=what.kind.plural, group=what.kind.group, name=stored.name, uid=stored.uid)
        return Response(orjson.dumps(done), 201, media_type=JSON)

    async def _bind(
        self, what: Bindable, namespace: str | None, name: str, binding: Binding, user: User, options: WriteOptions
    ) -> Stored:
        for attempt in range(_ATTEMPTS):
            stored = await self._store.get(what.kind, namespace, name)
            found = stored.json()
            check_object(what, found, binding, user)
            if binding.function is not None:
                check_function(what, binding.function, await self._functions())
                check_free(what, binding.function, stored, (await self._store.list(what.kind)).items)
            before = found["spec"].get("function")
            if before == binding.function:
                return stored
            found["spec"]["function"] = binding.function
            try:
                done = await self._store.replace(what.kind, found, options=options)
            except Conflict:
                # Its controller writes its status all the time; that is no reason to bother the host.
                if binding.resource_version is not None or attempt == _ATTEMPTS - 1:
                    raise
                continue
            if not options.dry_run:
                told = what.kind.model.model_validate_json(done.raw)
                self._audit(what.kind, told, *_told(user, before, binding.function))
            return done
        raise AssertionError("unreachable")

    async def _functions(self) -> Sequence[FunctionStatus]:
        try:
            stored = await self._store.get(SMART_NIC, None, self._smart_nic)
        except NotFound:
            return ()
        return SmartNIC.model_validate_json(stored.raw).status.functions or ()


def read_binding(body: object) -> Binding:
    """Raises ``BadRequest``."""
    if not isinstance(body, dict) or "function" not in body or not _FIELDS.issuperset(body):
        raise BadRequest(
            "a binding has the field function, and metadata.uid and metadata.resourceVersion where they matter",
            hint='send {"function": "pf0vf3"}, or {"function": null} to unplug',
        )
    function, metadata = body["function"], body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object", field="metadata")
    texts = {"function": function, **{key: metadata.get(key) for key in ("uid", "resourceVersion")}}
    for field, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise BadRequest(f"{field} must be a string that is not empty", field=field)
    return Binding(function, texts["uid"], texts["resourceVersion"])


def check_object(what: Bindable, found: JsonObject, binding: Binding, user: User) -> None:
    """Raises ``Conflict``, and ``Forbidden`` for what is not the host's to plug."""
    metadata, noun = found["metadata"], what.noun
    name = metadata["name"]
    if binding.uid not in (None, metadata["uid"]) or binding.resource_version not in (
        None,
        metadata["resourceVersion"],
    ):
        raise Conflict(f"the {noun} {name} is not the one that is meant, or was changed since: read it again")
    if found["spec"].get("owner") == HOST_OWNER and HOSTS in user.groups:
        raise Forbidden(
            f"the {noun} {name} is a bare machine's: the administrators of this SmartNIC plug it",
            code="PortNotBindable",
        )
    if found["spec"].get("remote") and binding.function is not None:
        # Whoever is let out of it would be one whom policies let in.
        raise Forbidden(
            f"the {noun} {name} is switched elsewhere, and is here only for policies to know its addresses",
            code="PortNotBindable",
        )
    if metadata.get("deletionTimestamp") is not None and binding.function is not None:
        raise Conflict(f"the {noun} {name} is being deleted", code="PortGoes")


def check_function(what: Bindable, function: str, shown: Sequence[FunctionStatus]) -> None:
    """Raises ``Refused`` (``NoSuchFunction``)."""
    known = [one for one in shown if one.kind is what.functions]
    if all(one.id != function for one in known):
        names = ", ".join(one.id for one in known[:32])
        sort = {FunctionKind.NET: "network", FunctionKind.NVME: "NVMe"}[what.functions]
        raise Refused(
            f"this SmartNIC shows no {sort} function {function[:63]!r} to its host",
            code="NoSuchFunction",
            hint=f"it shows {names}" if names else "it shows none at all: `carmel smartnic show` on the host says why",
        )


def check_free(what: Bindable, function: str, wanting: Stored, others: Sequence[Stored]) -> None:
    """A function is in one port. It is not taken from another silently: that one's VM would lose its network.

    Raises ``Conflict`` (``FunctionInUse``)."""
    for stored in others:
        if stored.uid != wanting.uid and (stored.json().get("spec") or {}).get("function") == function:
            name = stored.name if stored.namespace is None else f"{stored.namespace}/{stored.name}"
            raise Conflict(
                f"the function {function} is plugged into the {what.noun} {name}",
                code="FunctionInUse",
                hint="unplug it there first, or take another function",
            )


def _told(user: User, before: str | None, function: str | None) -> tuple[str, str]:
    if function is None:
        return "FunctionUnplugged", f"{user.name} unplugged the function {before}"
    instead = f" instead of {before}" if before is not None else ""
    return "FunctionPlugged", f"{user.name} plugged in the function {function}{instead}"
