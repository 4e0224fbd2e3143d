"""Which files follow from a configuration."""

from __future__ import annotations

import json

from carmel.firstboot.configuration import parse
from carmel.firstboot.files import system_files

_NETWORK = "etc/systemd/network/"


def made(text: str) -> dict[str, str]:
    """Without the line that says where they come from."""
    found = {}
    for file in system_files(parse(text.encode())):
        lines = [line for line in file.text.splitlines() if not line.startswith("# ")]
        found[file.path] = "\n".join(lines)
    return found


def sections(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n")]


def test_nothing_asked_for_is_a_name_and_no_more() -> None:
    assert made("") == {
        "etc/hostname": "carmel",
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 carmel\n::1 localhost ip6-localhost ip6-loopback",
    }


def test_an_address_on_every_card_and_none_of_the_others() -> None:
    found = made("network: {addresses: [192.0.2.10/24], gateway: 192.0.2.1, nameservers: [192.0.2.53]}")
    assert [path for path in found if path.startswith(_NETWORK)] == [f"{_NETWORK}22-carmel.network"]
    assert sections(found[f"{_NETWORK}22-carmel.network"]) == [
        "[Match]\nType=ether\nKind=!*",
        "[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nDNS=192.0.2.53",
    ]


def test_cards_carry_a_bond_that_carries_a_vlan_that_has_the_addresses() -> None:
    found = made("network: {interfaces: [a, b], bond: {mode: 802.3ad}, vlan: 7, mtu: 9000}")
    units = {path.removeprefix(_NETWORK): sections(text) for path, text in found.items() if path.startswith(_NETWORK)}
    mtu = "[Link]\nMTUBytes=9000"
    assert units["20-carmel-bond.netdev"] == [
        "[NetDev]\nName=bond0\nKind=bond\nMTUBytes=9000",
        "[Bond]\nMode=802.3ad\nMIIMonitorSec=100ms\nLACPTransmitRate=fast\nTransmitHashPolicy=layer3+4",
    ]
    assert units["20-carmel-cards.network"] == ["[Match]\nName=a b", mtu, "[Network]\nBond=bond0"]
    carrier = "[Network]\nVLAN=vlan7\nLinkLocalAddressing=no\nIPv6AcceptRA=no"
    assert units["21-carmel-carrier.network"] == ["[Match]\nName=bond0", mtu, carrier]
    assert units["21-carmel-vlan.netdev"] == ["[NetDev]\nName=vlan7\nKind=vlan\nMTUBytes=9000", "[VLAN]\nId=7"]
    assert units["22-carmel.network"] == ["[Match]\nName=vlan7", mtu, "[Network]\nDHCP=yes"]


def test_a_mistaken_card_leaves_a_way_in_by_the_others() -> None:
    others = made("network: {interfaces: [eno7], addresses: [192.0.2.10/24]}")[f"{_NETWORK}30-carmel-others.network"]
    assert "[Match]\nType=ether\nKind=!*" in others
    assert "DHCP=yes" in others
    assert "RouteMetric=4096" in others


def test_cards_by_their_mac_addresses() -> None:
    found = made("network: {interfaces: ['00:11:22:33:44:55']}")[f"{_NETWORK}22-carmel.network"]
    assert "PermanentMACAddress=00:11:22:33:44:55" in found


def test_the_daemon_listens_where_told_and_is_called_by_its_fixed_addresses() -> None:
    text = "network: {addresses: [192.0.2.10/24]}\napi: {listen: 0.0.0.0, port: 17443, names: [a.example]}"
    assert made(text)["etc/carmel/carmeld.env"].splitlines() == [
        "CARMEL_HTTPS_ADDRESS=0.0.0.0",
        "CARMEL_HTTPS_PORT=17443",
        "CARMEL_HTTPS_NAMES=a.example,192.0.2.10",
    ]
    assert "etc/carmel/carmeld.env" not in made("network: {addresses: [192.0.2.10/24]}")


def test_secrets_are_for_roots_eyes_alone() -> None:
    token = "t" * 40
    text = f"""
api: {{adminToken: {token}}}
join: {{url: "https://c.example", token: joining}}
ssh: {{authorizedKeys: [ssh-ed25519 AAAA me]}}
"""
    files = {file.path: file for file in system_files(parse(text.encode()))}
    assert files["var/lib/carmel/pki/admin.token"].text == f"{token}\n"
    joining = files["var/lib/carmel/firstboot/join.json"]
    assert json.loads(joining.text) == {"url": "https://c.example", "token": "joining"}
    private = {path for path, file in files.items() if file.private}
    assert private == {
        "var/lib/carmel/pki/admin.token",
        "var/lib/carmel/firstboot/join.json",
        "root/.ssh/authorized_keys",
    }
    for path, file in files.items():
        assert path in private or not any(secret in file.text for secret in (token, "joining"))
