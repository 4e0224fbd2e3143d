"""All kinds there are."""

from __future__ import annotations

from carmel.errors import NotFound
from carmel.resources.core import EVENT, NAMESPACE, SECRET
from carmel.resources.datastore import DATASTORE
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.resources.host import HOST
from carmel.resources.image import IMAGE
from carmel.resources.kinds import Kind
from carmel.resources.lease import LEASE
from carmel.resources.network import NETWORK
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.port import PORT
from carmel.resources.rbac import CLUSTER_ROLE_BINDING, ROLE_BINDING
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.task import TASK
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.resources.volume import VOLUME

KINDS: tuple[Kind, ...] = (
    VIRTUAL_MACHINE,
    IMAGE,
    VOLUME,
    DATASTORE,
    NETWORK,
    PORT,
    FIREWALL_POLICY,
    HOST,
    SMART_NIC,
    NVME_NAMESPACE,
    TASK,
    NAMESPACE,
    SECRET,
    EVENT,
    ROLE_BINDING,
    CLUSTER_ROLE_BINDING,
    LEASE,
)


def by_resource(group: str, plural: str) -> Kind:
    """The kind that a URL names. Raises ``NotFound``."""
    for kind in KINDS:
        if kind.group == group and kind.plural == plural:
            return kind
    raise NotFound(f"the server has no resource {plural}{'.' + group if group else ''}")


def by_word(word: str) -> Kind:
    """The kind a person means by ``vm``, ``vms`` or ``virtualmachines.carmel.dev``. Raises ``NotFound``."""
    lowered = word.lower()
    for kind in KINDS:
        if lowered in {kind.plural, kind.singular, kind.resource, *kind.short_names}:
            return kind
    raise NotFound(f"there is no kind {word!r}", hint="kinds: " + ", ".join(kind.plural for kind in KINDS))
