"""What a request is about: verb, resource, namespace, name (Kubernetes' ``RequestInfo``).

The path is taken apart *before* percent-decoding, so that an encoded slash can never make a segment into two, and
what is decoded must be a name that an object can have, or there is no such object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from carmel.errors import MethodNotAllowed, NotFound
from carmel.resources.admission import check_name
from carmel.resources.base import DNS_LABEL, DNS_SUBDOMAIN
from carmel.resources.kinds import Kind
from carmel.resources.rbac import GROUP as RBAC_GROUP
from carmel.resources.registry import by_resource

_LABEL = re.compile(DNS_LABEL)
_SUBDOMAIN = re.compile(DNS_SUBDOMAIN)
_RBAC_NAME = re.compile(r"[^/%\x00-\x1f\x7f]{1,253}")
_WORD = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

_ITEM_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCE_VERBS = {**_ITEM_VERBS, "POST": "create"}
_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
_SUBRESOURCES: dict[tuple[str, str], frozenset[str]] = {
    ("virtualmachines", "console"): frozenset({"GET"}),
    ("virtualmachines", "log"): frozenset({"GET", "HEAD"}),
    ("images", "download"): frozenset({"GET"}),
    ("images", "upload"): frozenset({"PUT"}),
    ("ports", "binding"): frozenset({"POST"}),
    ("nvmenamespaces", "binding"): frozenset({"POST"}),
    ("namespaces", "finalize"): frozenset({"PUT"}),
}
_NEVER_STORED = frozenset({"authorization.k8s.io", "authentication.k8s.io"})
"""Groups whose objects are answered and forgotten (``reviews``)."""
_STATUS_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """``kind`` is ``None`` for what is no stored resource; ``verb`` is then the HTTP method in lower case.

    ``namespace`` ``None`` is all namespaces, or a cluster-scoped resource. ``name`` is empty for a collection.
    """

    verb: str
    path: str
    kind: Kind | None = None
    namespace: str | None = None
    name: str = ""
    subresource: str = ""


def is_subresource(kind: Kind, name: str) -> bool:
    return (kind.plural, name) in _SUBRESOURCES or (name == "status" and kind.has_status)


def subresources(kind: Kind) -> dict[str, tuple[str, ...]]:
    """The subresources of a kind and their verbs, as discovery tells them."""
    found = {"status": _STATUS_METHODS} if kind.has_status else {}
    found |= {name: methods for (plural, name), methods in _SUBRESOURCES.items() if plural == kind.plural}
    return {name: tuple(sorted({_SUBRESOURCE_VERBS[method] for method in methods})) for name, methods in found.items()}


def resolve(method: str, raw_path: bytes, *, watch: bool = False) -> RequestInfo:
    """Read a request's method and path. Raises ``NotFound`` and ``MethodNotAllowed``."""
    parts = _segments(raw_path)
    path = "/" + "/".join(parts)
    if parts[:1] == ["api"] and len(parts) > 2 and parts[1] == "v1":
        return _resource(method, path, "", "v1", parts[2:], watch=watch)
    if parts[:1] == ["apis"] and len(parts) > 3 and parts[1] not in _NEVER_STORED:
        return _resource(method, path, parts[1], parts[2], parts[3:], watch=watch)
    return RequestInfo(verb="get" if method == "HEAD" else method.lower(), path=path)


def _segments(raw_path: bytes) -> list[str]:
    try:
        parts = [unquote_to_bytes(part).decode() for part in raw_path.split(b"/")]
    except UnicodeDecodeError:
        raise _nothing_there() from None
    if parts[0] != "":
        raise _nothing_there()
    parts = parts[1:-1] if parts[-1] == "" else parts[1:]
    for part in parts:
        if not part or "/" in part or part in {".", ".."} or not part.isprintable():
            raise _nothing_there()
    return parts


def _nothing_there() -> NotFound:
    return NotFound("the server could not find the requested resource")


def _resource(method: str, path: str, group: str, version: str, rest: list[str], *, watch: bool) -> RequestInfo:
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in {"status", "finalize"}):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or not _WORD.fullmatch(rest[0]):
        raise _nothing_there()
    kind = by_resource(group, rest[0])
    if kind.version != version or (namespace is not None and not kind.namespaced):
        raise _nothing_there()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if namespace is not None and not (len(namespace) <= 63 and _LABEL.fullmatch(namespace)):
        raise NotFound(f"namespaces {namespace[:80]!r} not found")
    if name:
        _check_name(kind, name, method)
    if name and kind.namespaced and namespace is None:
        raise _nothing_there()
    return RequestInfo(
        verb=_verb(method, kind, namespace, name, subresource, watch=watch),
        path=path,
        kind=kind,
        namespace=namespace,
        name=name,
        subresource=subresource,
    )


def _check_name(kind: Kind, name: str, method: str) -> None:
    good = _RBAC_NAME.fullmatch(name) if kind.group == RBAC_GROUP else len(name) <= 253 and _SUBDOMAIN.fullmatch(name)
    if not good:
        if method == "PATCH":
            # An apply would make it: then the name is what is wrong, not that there is no such thing.
            check_name(kind, name)
        raise NotFound(f'{kind.resource} "{name[:80]}" not found')


def _verb(method: str, kind: Kind, namespace: str | None, name: str, subresource: str, *, watch: bool) -> str:
    if subresource:
        if not is_subresource(kind, subresource):
            raise _nothing_there()
        allowed = _STATUS_METHODS if subresource == "status" else _SUBRESOURCES[kind.plural, subresource]
        if method not in allowed:
            raise _not_allowed(method)
        return _SUBRESOURCE_VERBS[method]
    verb = (_ITEM_VERBS if name else _COLLECTION_VERBS).get(method)
    everywhere = kind.namespaced and namespace is None
    if verb is None or (everywhere and verb != "list"):
        raise _not_allowed(method)
    return "watch" if verb == "list" and watch else verb


def _not_allowed(method: str) -> MethodNotAllowed:
    return MethodNotAllowed(
        f"the server does not allow this method on the requested resource: {method[:20]}",
    )
