"""Plans NICs of provider ``user``: a private network for each NIC behind the host's own address. Pure.

In each network the host answers as .2 and its DNS forwarder as .3, and the guest gets .15 by DHCP (one more for each
further NIC), whichever back end it is: the guest need not know, and nothing in it depends on the host's address.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.network.backends import PROGRAM, Backend
from carmel.network.ports import HostPort, IsFree, choose, require_free
from carmel.resources.network import Network, NetworkProvider, UserNetwork
from carmel.resources.virtualmachine import Forward, ForwardStatus, NetworkInterface, NetworkInterfaceStatus

_HOST, _DNS, _FIRST_GUEST = 2, 3, 15


@dataclass(frozen=True, slots=True)
class HelperPlan:
    """A process that the NIC needs beside QEMU. Ready when it listens on ``socket``."""

    name: str
    argv: tuple[str, ...]
    socket: Path


@dataclass(frozen=True, slots=True)
class NicPlan:
    """One NIC. ``netdev`` are the options of ``-netdev`` without ``id``."""

    name: str
    network_name: str
    mac: str
    address: str
    forwards: tuple[ForwardStatus, ...]
    netdev: Mapping[str, object]
    helper: HelperPlan | None


@dataclass(frozen=True, slots=True)
class _Addresses:
    subnet: ipaddress.IPv4Network
    guest: str

    @property
    def host(self) -> str:
        return str(self.subnet[_HOST])

    @property
    def dns(self) -> str:
        return str(self.subnet[_DNS])


def mac_address(uid: str, nic: str) -> str:
    """The same for the same NIC of the same VM, for ever: QEMU's prefix (52:54:00) and 24 bits of a hash."""
    tail = hashlib.sha256(f"{uid}/{nic}".encode()).digest()[:3]
    return ":".join(f"{byte:02x}" for byte in b"\x52\x54\x00" + tail)


def plan_nics(
    uid: str,
    host_name: str,
    wanted: Sequence[tuple[int, NetworkInterface, Network]],
    before: Sequence[NetworkInterfaceStatus],
    sockets: Mapping[int, Path],
    backend: Backend,
    is_free: IsFree,
) -> tuple[NicPlan, ...]:
    """One plan a NIC, in order. ``wanted`` says of each which of the VM's NICs it is, by number. ``before`` are the
    NICs of the VM's last start: their ports are taken again.

    ``sockets`` are paths for helpers, by these numbers. Raises ``Refused`` (``NotSupported``, ``PortInUse``).
    """
    taken: set[HostPort] = set()
    # Ports that somebody asked for are not given away by choice.
    asked = {
        HostPort(forward.protocol, forward.host_address, forward.host_port)
        for _, nic, _ in wanted
        for forward in nic.forwards or []
        if forward.host_port is not None
    }
    plans = []
    for index, nic, network in wanted:
        _require_user(network, index)
        subnet = ipaddress.IPv4Network((network.spec.user or UserNetwork()).subnet)
        addresses = _Addresses(subnet, str(subnet[_FIRST_GUEST + index]))
        forwards = []
        for number, forward in enumerate(nic.forwards or []):
            field = f"spec.networks[{index}].forwards[{number}].hostPort"
            last = _last_port(before, nic.name, forward)
            port = _host_port(forward, f"{uid}/{nic.name}", last, taken, asked, is_free, field)
            taken.add(port)
            forwards.append(_forward_status(forward, port))
        helper = _passt(addresses, forwards, sockets[index], index) if backend is Backend.PASST else None
        netdev = _slirp(addresses, forwards, host_name) if helper is None else _stream(helper.socket)
        mac = nic.mac or mac_address(uid, nic.name)
        name = network.metadata.name
        plans.append(NicPlan(nic.name, name, mac, addresses.guest, tuple(forwards), netdev, helper))
    return tuple(plans)


# -- ports --------------------------------------------------------------------------------------------------------
def _host_port(
    forward: Forward,
    identity: str,
    last: int | None,
    taken: set[HostPort],
    asked: set[HostPort],
    is_free: IsFree,
    field: str,
) -> HostPort:
    address, protocol = forward.host_address, forward.protocol
    if forward.host_port is not None:
        wanted = HostPort(protocol, address, forward.host_port)
        return require_free(wanted, lambda port: not _among(port, taken) and is_free(port), field)
    key = f"{identity}/{protocol.value}/{address}/{forward.guest_port}"
    return choose(protocol, address, key, last, lambda port: not _among(port, taken | asked) and is_free(port))


def _among(port: HostPort, others: set[HostPort]) -> bool:
    """0.0.0.0 has every address's ports."""
    everywhere = "0.0.0.0"  # noqa: S104 - compared, not bound
    return any(
        port.port == other.port
        and port.protocol is other.protocol
        and (port.address == other.address or everywhere in (port.address, other.address))
        for other in others
    )


def _last_port(before: Sequence[NetworkInterfaceStatus], nic: str, forward: Forward) -> int | None:
    for status in before:
        for one in (status.forwards or []) if status.name == nic else []:
            same = (one.protocol, one.guest_port, one.host_address, one.name)
            if same == (forward.protocol, forward.guest_port, forward.host_address, forward.name):
                return one.host_port
    return None


def _forward_status(forward: Forward, port: HostPort) -> ForwardStatus:
    return ForwardStatus(
        name=forward.name,
        protocol=forward.protocol,
        guest_port=forward.guest_port,
        host_address=port.address,
        host_port=port.port,
    )


# -- back ends ----------------------------------------------------------------------------------------------------
def _slirp(addresses: _Addresses, forwards: Sequence[ForwardStatus], host_name: str) -> Mapping[str, object]:
    """QEMU's own (qemu(1), ``-netdev user``). IPv4 only: its IPv6 promises what the host may not have."""
    rules = [
        f"{one.protocol.value.lower()}:{one.host_address}:{one.host_port}-{addresses.guest}:{one.guest_port}"
        for one in forwards
    ]
    return {
        "type": "user",
        "ipv4": True,
        "ipv6": False,
        "net": str(addresses.subnet),
        "host": addresses.host,
        "dns": addresses.dns,
        "dhcpstart": addresses.guest,
        **({"hostname": host_name} if host_name else {}),
        **({"hostfwd": [{"str": rule} for rule in rules]} if rules else {}),
    }


def _stream(socket: Path) -> Mapping[str, object]:
    return {"type": "stream", "server": False, "addr": {"type": "unix", "path": str(socket)}}


def _passt(addresses: _Addresses, forwards: Sequence[ForwardStatus], socket: Path, index: int) -> HelperPlan:
    """passt(1). ``--no-map-gw``: the guest does not reach what listens on the host's loopback."""
    argv = [PROGRAM, "--foreground", "--quiet", "--one-off", "--ipv4-only", "--no-map-gw", "--socket", str(socket)]
    argv += ["--address", addresses.guest, "--netmask", str(addresses.subnet.prefixlen)]
    argv += ["--gateway", addresses.host, "--dns-forward", addresses.dns]
    for protocol, option in (("TCP", "--tcp-ports"), ("UDP", "--udp-ports")):
        rules = [
            f"{one.host_address}/{one.host_port}:{one.guest_port}" for one in forwards if one.protocol.value == protocol
        ]
        for rule in rules or ["none"]:
            argv += [option, rule]
    return HelperPlan(f"{PROGRAM}{index}", tuple(argv), socket)


def _require_user(network: Network, index: int) -> None:
    if network.spec.provider is not NetworkProvider.USER:
        raise Refused(
            f"the network {network.metadata.name} has provider {network.spec.provider.value}, which is not offered yet",
            code="NotSupported",
            hint="use a network with provider user",
            field=f"spec.networks[{index}].networkRef.name",
        )
