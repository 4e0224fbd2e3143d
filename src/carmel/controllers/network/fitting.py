"""What of a NIC a network cannot do is refused, never passed over. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.controllers.virtualmachine.ports import WantedNic
from carmel.errors import Refused

SWITCHED = ("vlan", "trunk", "addresses", "limits", "mirror_to")
"""What whoever switches a NIC's frames does for it."""


def require_without(wanted: WantedNic, names: Iterable[str], because: str, hint: str) -> None:
    """Raises ``Refused`` (``NotSupported``) for the first of ``names`` that the NIC has."""
    for name in names:
        if getattr(wanted.nic, name) is not None:
            field = type(wanted.nic).model_fields[name].alias or name
            raise Refused(
                f"network {wanted.network.metadata.name} {because}: it has no {field}",
                code="NotSupported",
                field=f"spec.networks[{wanted.index}].{field}",
                hint=hint,
            )
