"""From a Port, as the API has it, to what the firewall wants to know of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from carmel.network.firewall.model import PortBinding, PortKey
from carmel.resources.port import DataPlane, Port


def binding_of(port: Port, labels: Mapping[str, str], here: DataPlane = DataPlane.HOST) -> PortBinding:
    """``labels`` are those of the port's VM. Addresses are those that were given, or else those that were learned.

    ``here`` is the data plane of this machine: ports that another one switches are peers only.
    """
    status = port.status
    away = status.data_plane is DataPlane.SMART_NIC and here is DataPlane.HOST
    return PortBinding(
        PortKey(port.metadata.namespace or "default", port.metadata.name),
        port.spec.vm_ref.name,
        labels,
        tuple(ipaddress.ip_address(text) for text in port.spec.addresses or status.addresses or ()),
        status.interface if status.data_plane is here and not port.spec.remote else None,
        (status.smart_nic or "") if away else None,
        bool(port.spec.remote),
    )
