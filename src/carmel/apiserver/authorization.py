"""Who may do what: the three roles of ``resources.rbac``, bound by RoleBindings and ClusterRoleBindings.

What follows from the roles:

* an operator writes Secrets for VMs, but no answer ever shows one: only ``create`` and ``delete``;
* bindings are written by admins alone, cluster-wide ones by admins of the whole host: nobody gives what he has not;
* the namespace ``carmel-system`` holds tokens, which can be made out to anybody: what is bound in it does not count
  there, and its Secrets are for admins of the whole host;
* what has no namespace (hosts, networks, datastores) takes a ClusterRoleBinding, also to be read;
* whoever is known may discover the API and ask what he may do.

On a SmartNIC the host that it serves (group ``system:hosts``) may do what ``spec.trust`` of the NIC's own object says,
and nothing that a binding gives besides: see ``HOST_RULES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carmel.apiserver.hostnames import GROUP as HOSTS
from carmel.apiserver.identity import AUTHENTICATED, MASTERS, SYSTEM_NAMESPACE, User
from carmel.apiserver.mirror import Mirror
from carmel.apiserver.requestinfo import RequestInfo
from carmel.errors import Forbidden
from carmel.resources.rbac import CLUSTER_ROLE_BINDING, ROLE_BINDING, Role
from carmel.resources.registry import KINDS
from carmel.resources.smartnic import SMART_NIC, Trust
from carmel.store.protocol import Store, Stored

ANY = "*"
_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch", "delete", "deletecollection")
_GROUP = "carmel.dev"
_OPERATED = ("virtualmachines", "images", "volumes", "tasks")


@dataclass(frozen=True, slots=True)
class Attributes:
    """One thing that somebody wants to do. ``namespace`` is empty for cluster-scoped things and for all namespaces.

    ``resource`` is ``virtualmachines`` or ``virtualmachines/console``; with a ``path`` it is no resource at all.
    """

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of groups, or on paths; ``*`` is any."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def allows(self, wanted: Attributes) -> bool:
        if not _covers(self.verbs, wanted.verb):
            return False
        if wanted.path:
            return any(one in {ANY, wanted.path} or _below(one, wanted.path) for one in self.paths)
        return _covers(self.groups, wanted.group) and _covers(self.resources, wanted.resource)


def _covers(listed: tuple[str, ...], wanted: str) -> bool:
    return wanted in listed or ANY in listed


def _below(pattern: str, path: str) -> bool:
    return pattern.endswith("/*") and path.startswith(pattern[:-1])


DISCOVERY = (
    Rule(
        verbs=("get",),
        paths=("/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version", "/healthz", "/livez", "/readyz", "/"),
    ),
    Rule(
        verbs=("create",),
        groups=("authorization.k8s.io",),
        resources=("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
    ),
    Rule(verbs=("create",), groups=("authentication.k8s.io",), resources=("selfsubjectreviews",)),
)


def _viewed() -> Iterator[Rule]:
    for group in dict.fromkeys(kind.group for kind in KINDS):
        kinds = [kind for kind in KINDS if kind.group == group and kind.plural != "secrets"]
        status = [f"{kind.plural}/status" for kind in kinds if kind.has_status]
        yield Rule(verbs=_READ, groups=(group,), resources=(*(kind.plural for kind in kinds), *status))
    yield Rule(verbs=("get",), groups=(_GROUP,), resources=("virtualmachines/log",))
    yield Rule(verbs=("get",), paths=("/metrics",))


_VIEWER = tuple(_viewed())
_OPERATOR = (
    *_VIEWER,
    Rule(verbs=_WRITE, groups=(_GROUP,), resources=_OPERATED),
    Rule(verbs=("get",), groups=(_GROUP,), resources=("virtualmachines/console",)),
    Rule(verbs=("update",), groups=(_GROUP,), resources=("images/upload",)),
    Rule(verbs=("get",), groups=(_GROUP,), resources=("images/download",)),
    Rule(verbs=("create", "delete"), groups=("",), resources=("secrets",)),
)
_ADMIN = (Rule(verbs=(ANY,), groups=(ANY,), resources=(ANY,)), Rule(verbs=(ANY,), paths=(ANY,)))
ROLE_RULES = {Role.VIEWER: _VIEWER, Role.OPERATOR: _OPERATOR, Role.ADMIN: _ADMIN}
_HOST_RESTRICTED = (
    Rule(verbs=_READ, groups=(_GROUP,), resources=("smartnics", "networks", "ports")),
    Rule(verbs=("create",), groups=(_GROUP,), resources=("ports/binding", "nvmenamespaces/binding")),
    Rule(verbs=("get",), paths=("/metrics",)),
)
_HOST_FULL = (
    *_HOST_RESTRICTED,
    Rule(verbs=(*_READ, *_WRITE), groups=(_GROUP,), resources=("networks", "ports", "firewallpolicies")),
    # Not delete: with a namespace would go what administrators of the NIC keep in it, their secrets too.
    Rule(verbs=(*_READ, "create", "update", "patch"), groups=("",), resources=("namespaces",)),
)
HOST_RULES = {Trust.RESTRICTED: _HOST_RESTRICTED, Trust.FULL: _HOST_FULL}
"""What a SmartNIC's host may do there. No status, no secret, no event, no binding of roles, nothing of the NIC's own
object: those are its administrators'."""
HOST_METRICS = ("carmel_node_cpu_", "carmel_port_", "process_cpu_")
"""What ``/metrics`` shows to a host: the NIC's CPU time, and the ports of its own VMs."""
_CLUSTER_SCOPED = frozenset((kind.group, kind.plural) for kind in KINDS if not kind.namespaced)


def attributes_of(info: RequestInfo) -> Attributes:
    if info.kind is None:
        return Attributes(verb=info.verb, path=info.path)
    resource = f"{info.kind.plural}/{info.subresource}" if info.subresource else info.kind.plural
    return Attributes(info.verb, info.kind.group, resource, info.namespace or "", info.name)


class Authorizer:
    """Decides by the bindings there are at the moment. ``smart_nic`` is the name of the SmartNIC that this is."""

    def __init__(self, store: Store, smart_nic: str | None = None) -> None:
        self._smart_nic = smart_nic
        self._smart_nics = None if smart_nic is None else Mirror(store, SMART_NIC)
        self._bindings = Mirror(store, ROLE_BINDING)
        self._cluster_bindings = Mirror(store, CLUSTER_ROLE_BINDING)
        self._versions = (-1, -1)
        self._roles: dict[tuple[str, str], set[tuple[str, Role]]] = {}

    async def start(self) -> None:
        await self._bindings.start()
        await self._cluster_bindings.start()
        if self._smart_nics is not None:
            await self._smart_nics.start()

    async def stop(self) -> None:
        if self._smart_nics is not None:
            await self._smart_nics.stop()
        await self._bindings.stop()
        await self._cluster_bindings.stop()

    def check(self, user: User, wanted: Attributes) -> None:
        """Raises ``Forbidden``, in the words that Kubernetes uses."""
        if not self.allowed(user, wanted):
            raise Forbidden(_refusal(user, wanted))

    def allowed(self, user: User, wanted: Attributes) -> bool:
        if MASTERS in user.groups:
            return True
        if AUTHENTICATED in user.groups and any(rule.allows(wanted) for rule in DISCOVERY):
            return True
        if self._is_host(user):
            return not _is_systems(wanted) and any(rule.allows(wanted) for rule in HOST_RULES[self._trust()])
        roles = self._roles_of(user, _home(wanted))
        if wanted.namespace == SYSTEM_NAMESPACE and wanted.resource.partition("/")[0] in {"secrets", ANY}:
            roles &= {Role.ADMIN}
        return any(rule.allows(wanted) for role in roles for rule in ROLE_RULES[role])

    def rules(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """All that ``user`` may do in ``namespace``."""
        if MASTERS in user.groups:
            return (*_ADMIN, *DISCOVERY)
        if self._is_host(user):
            return (*DISCOVERY, *HOST_RULES[self._trust()])
        roles = self._roles_of(user, namespace)
        return (*DISCOVERY, *dict.fromkeys(rule for role in sorted(roles) for rule in ROLE_RULES[role]))

    def _is_host(self, user: User) -> bool:
        return self._smart_nics is not None and HOSTS in user.groups

    def _trust(self) -> Trust:
        """Of the NIC's own object; without one, as little as there is."""
        assert self._smart_nics is not None
        own = self._smart_nics.objects.get((None, self._smart_nic or ""))
        spec = {} if own is None else own.json().get("spec") or {}
        return Trust(spec.get("trust") or Trust.RESTRICTED)

    def _roles_of(self, user: User, namespace: str) -> set[Role]:
        """The roles that count in ``namespace``; in ``""`` only those bound cluster-wide."""
        places = {"", namespace} - {SYSTEM_NAMESPACE}
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        bound = self._bound()
        return {role for subject in subjects for place, role in bound.get(subject, ()) if place in places}

    def _bound(self) -> dict[tuple[str, str], set[tuple[str, Role]]]:
        versions = (self._bindings.version, self._cluster_bindings.version)
        if versions != self._versions:
            self._versions = versions
            self._roles = {}
            for mirror in (self._bindings, self._cluster_bindings):
                for stored in mirror.objects.values():
                    self._bind(stored)
        return self._roles

    def _bind(self, stored: Stored) -> None:
        binding = stored.json()
        if binding["roleRef"]["name"] not in ROLE_RULES:
            return
        role = Role(binding["roleRef"]["name"])
        for subject in binding.get("subjects") or []:
            key = (subject.get("kind", "User"), subject["name"])
            self._roles.setdefault(key, set()).add((stored.namespace or "", role))


def _is_systems(wanted: Attributes) -> bool:
    """To be changed in, or with, the namespace that holds tokens: never by a host."""
    if wanted.verb in _READ:
        return False
    named = wanted.name if (wanted.group, wanted.resource) == ("", "namespaces") else ""
    return SYSTEM_NAMESPACE in {wanted.namespace, named}


def _home(wanted: Attributes) -> str:
    """The namespace whose bindings count: that of the thing, and for a Namespace that is read, itself."""
    resource = wanted.resource.partition("/")[0]
    if (wanted.group, resource) == ("", "namespaces"):
        return wanted.name if wanted.verb == "get" else ""
    return "" if (wanted.group, resource) in _CLUSTER_SCOPED else wanted.namespace


def _refusal(user: User, wanted: Attributes) -> str:
    if wanted.path:
        return f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
    resource = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    named = f' "{wanted.name}"' if wanted.name else ""
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return (
        f'{resource}{named} is forbidden: User "{user.name}" cannot {wanted.verb} resource "{wanted.resource}" '
        f'in API group "{wanted.group}" {where}'
    )
