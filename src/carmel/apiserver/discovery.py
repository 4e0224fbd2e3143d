"""Which groups, versions and resources there are: legacy discovery, and the aggregated one of newer clients."""

from __future__ import annotations

from functools import cache

from carmel.apiserver.negotiation import accepted
from carmel.apiserver.requestinfo import subresources
from carmel.apiserver.reviews import REVIEWS
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_AGGREGATED_GROUP = "apidiscovery.k8s.io"


@cache
def group_versions() -> tuple[tuple[str, str], ...]:
    """(group, version) of everything that is served, core first, in the order that clients should prefer."""
    served = [(kind.group, kind.version) for kind in KINDS] + [(review.group, "v1") for review in REVIEWS]
    return tuple(dict.fromkeys(sorted(served, key=lambda one: one[0] != "")))


def aggregated_version(accept: str) -> str | None:
    """``v2`` or ``v2beta1`` when the client asks for aggregated discovery before plain JSON."""
    for entry in accepted(accept):
        parameters = entry.parameters
        if entry.type != "application/json":
            continue
        if parameters.get("as") != "APIGroupDiscoveryList":
            return None
        if parameters.get("g") == _AGGREGATED_GROUP and parameters.get("v") in {"v2", "v2beta1"}:
            return parameters["v"]
    return None


def aggregated_media_type(version: str) -> str:
    return f"application/json;g={_AGGREGATED_GROUP};v={version};as=APIGroupDiscoveryList"


def aggregated(version: str, *, core: bool) -> JsonObject:
    """APIGroupDiscoveryList of the core group (``/api``) or of all others (``/apis``)."""
    groups = dict.fromkeys(group for group, _ in group_versions() if (group == "") == core)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{_AGGREGATED_GROUP}/{version}",
        "metadata": {},
        "items": [_discovered_group(group) for group in groups],
    }


def _discovered_group(group: str) -> JsonObject:
    versions = [version for name, version in group_versions() if name == group]
    return {
        "metadata": {"name": group} if group else {},
        "versions": [
            {"version": version, "freshness": "Current", "resources": _discovered_resources(group, version)}
            for version in versions
        ],
    }


def _discovered_resources(group: str, version: str) -> list[JsonObject]:
    answered = [
        {
            "resource": review.plural,
            "responseKind": {"group": group, "version": version, "kind": review.kind},
            "scope": "Cluster",
            "singularResource": review.kind.lower(),
            "verbs": ["create"],
        }
        for review in REVIEWS
        if review.group == group
    ]
    return [*(_discovered(kind) for kind in _kinds(group, version)), *answered]


def _discovered(kind: Kind) -> JsonObject:
    response = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    found: JsonObject = {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    if below := subresources(kind):
        found["subresources"] = [
            {"subresource": name, "responseKind": response, "verbs": list(verbs)} for name, verbs in below.items()
        ]
    return found


def _kinds(group: str, version: str) -> list[Kind]:
    return [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]


def api_versions(server_address: str) -> JsonObject:
    """``/api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def group_list() -> JsonObject:
    """``/apis``."""
    names = dict.fromkeys(group for group, _ in group_versions() if group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in names]}


def group(name: str) -> JsonObject | None:
    """``/apis/GROUP``; ``None`` when there is none."""
    if not name or all(one != name for one, _ in group_versions()):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def _group(name: str) -> JsonObject:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for group, version in group_versions()
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resource_list(group: str, version: str) -> JsonObject | None:
    """``/apis/GROUP/VERSION`` or ``/api/v1``; ``None`` when there is none."""
    if (group, version) not in group_versions():
        return None
    answered = [
        {
            "name": review.plural,
            "singularName": review.kind.lower(),
            "namespaced": False,
            "kind": review.kind,
            "verbs": ["create"],
        }
        for review in REVIEWS
        if review.group == group
    ]
    stored = [one for kind in _kinds(group, version) for one in (_listed(kind), *_listed_below(kind))]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": [*stored, *answered]}


def _listed(kind: Kind) -> JsonObject:
    listed: JsonObject = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        listed["shortNames"] = list(kind.short_names)
    if kind.categories:
        listed["categories"] = list(kind.categories)
    return listed


def _listed_below(kind: Kind) -> list[JsonObject]:
    return [
        {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(verbs),
        }
        for name, verbs in subresources(kind).items()
    ]
