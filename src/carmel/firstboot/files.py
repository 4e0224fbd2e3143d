"""Which files of the system follow from a configuration. Pure: values in, values out.

Sources: systemd.network(5), systemd.netdev(5), timesyncd.conf(5), hosts(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from carmel.firstboot.configuration import BondMode, HostConfiguration, Network

DEFAULT_NAME = "carmel"
_NETWORKD = "etc/systemd/network"
_NOTE = "# Written from carmel.yaml on the EFI system partition, at every boot.\n"
_BOND = "bond0"
# Of what the image's DHCP file matches too: real cards, not the bridges and taps of VMs.
_WIRED = "Type=ether\nKind=!*\n"


@dataclass(frozen=True, slots=True)
class File:
    """``path`` is relative to the root. A ``private`` one is for root's eyes (0600)."""

    path: str
    text: str
    private: bool = False


def system_files(configuration: HostConfiguration) -> tuple[File, ...]:
    """Every file that the configuration wants, sorted by path; what is not listed is to be as the image has it."""
    return tuple(sorted(_files(configuration), key=lambda file: file.path))


def _files(configuration: HostConfiguration) -> Iterator[File]:
    name = configuration.host_name or DEFAULT_NAME
    yield File("etc/hostname", f"{name}\n")
    local = "127.0.0.1 localhost\n" + f"127.0.1.1 {name}\n" + "::1 localhost ip6-localhost ip6-loopback\n"
    yield File("etc/hosts", local)
    if configuration.ssh.authorized_keys:
        keys = "".join(f"{key}\n" for key in configuration.ssh.authorized_keys)
        yield File("root/.ssh/authorized_keys", _NOTE + keys, private=True)
    if configuration.time.servers:
        servers = " ".join(str(server) for server in configuration.time.servers)
        yield File("etc/systemd/timesyncd.conf.d/carmel.conf", f"{_NOTE}[Time]\nNTP={servers}\n")
    settings = "".join(f"{key}={value}\n" for key, value in _daemon_settings(configuration).items() if value)
    if settings:
        yield File("etc/carmel/carmeld.env", _NOTE + settings)
    if configuration.api.admin_token is not None:
        yield File("var/lib/carmel/pki/admin.token", f"{configuration.api.admin_token}\n", private=True)
    if configuration.join is not None:
        yield File("var/lib/carmel/firstboot/join.json", json.dumps(configuration.join.to_json()) + "\n", private=True)
    if configuration.network != Network():
        yield from _network_files(configuration.network)


def _daemon_settings(configuration: HostConfiguration) -> dict[str, object]:
    """carmeld's environment. Clients may call the host by each of its fixed addresses."""
    api = configuration.api
    names = [*api.names, *(address.ip for address in configuration.network.addresses if api.listen)]
    return {
        "CARMEL_HTTPS_ADDRESS": api.listen,
        "CARMEL_HTTPS_PORT": api.port,
        "CARMEL_HTTPS_NAMES": ",".join(dict.fromkeys(str(name) for name in names)),
    }


def _network_files(network: Network) -> Iterator[File]:
    """Cards, then what lies on top of them: bond, VLAN. The topmost has the addresses."""
    vlan = f"vlan{network.vlan}" if network.vlan else None
    top = _addressing(network)
    cards = _match(network.interfaces)
    mtu = f"MTUBytes={network.mtu}\n" if network.mtu else ""
    if network.bond is not None:
        yield _unit("20-carmel-bond.netdev", f"[NetDev]\nName={_BOND}\nKind=bond\n{mtu}\n{_bond(network.bond.mode)}")
        yield _unit("20-carmel-cards.network", f"{cards}\n{_link(mtu)}[Network]\nBond={_BOND}\n")
        cards = _match([_BOND])
    if vlan is not None:
        yield _unit("21-carmel-vlan.netdev", f"[NetDev]\nName={vlan}\nKind=vlan\n{mtu}\n[VLAN]\nId={network.vlan}\n")
        carrier = f"[Network]\nVLAN={vlan}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        yield _unit("21-carmel-carrier.network", f"{cards}\n{_link(mtu)}{carrier}")
        cards = _match([vlan])
    yield _unit("22-carmel.network", f"{cards}\n{_link(mtu)}{top}")
    if network.interfaces:
        # A mistake in a card's name must leave another way in: the others go on asking for an address, and their
        # routes count only where there is no better one.
        others = "[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nRouteMetric=4096\n"
        others += "\n[IPv6AcceptRA]\nRouteMetric=4096\n"
        yield _unit("30-carmel-others.network", f"{_match([])}\n{others}")


def _unit(name: str, text: str) -> File:
    return File(f"{_NETWORKD}/{name}", f"{_NOTE}{text}")


def _match(interfaces: list[str]) -> str:
    """Names or MAC addresses: the lines of a section must all match, so a configuration has one sort or the other."""
    listed = " ".join(interfaces)
    if not interfaces:
        return f"[Match]\n{_WIRED}"
    return f"[Match]\n{_WIRED}PermanentMACAddress={listed}\n" if ":" in listed else f"[Match]\nName={listed}\n"


def _link(mtu: str) -> str:
    return f"[Link]\n{mtu}\n" if mtu else ""


def _bond(mode: BondMode) -> str:
    lacp = "LACPTransmitRate=fast\nTransmitHashPolicy=layer3+4\n" if mode is BondMode.LACP else ""
    return f"[Bond]\nMode={mode.value}\nMIIMonitorSec=100ms\n{lacp}"


def _addressing(network: Network) -> str:
    lines = [f"Address={address}\n" for address in network.addresses] or ["DHCP=yes\n"]
    lines += [f"Gateway={network.gateway}\n"] if network.gateway else []
    lines += [f"DNS={server}\n" for server in network.nameservers]
    lines += [f"Domains={' '.join(network.search_domains)}\n"] if network.search_domains else []
    return "[Network]\n" + "".join(lines)
