"""NICs of provider user: stable, collision-free, the same guest's view by both back ends."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from carmel.errors import CarmelError
from carmel.network.backends import Backend
from carmel.network.ports import FIRST_PORT, LAST_PORT, HostPort, can_bind
from carmel.network.user import NicPlan, mac_address, plan_nics
from carmel.resources.base import LocalReference, ObjectMeta
from carmel.resources.network import Network, NetworkProvider, NetworkSpec, UserNetwork
from carmel.resources.virtualmachine import Forward, NetworkInterface, NetworkInterfaceStatus, Protocol

UID = "0b9f6c1e-0000-4000-8000-000000000001"


def nic(name: str = "net0", *forwards: dict[str, Any], mac: str | None = None) -> NetworkInterface:
    made = [Forward.model_validate(one) for one in forwards]
    return NetworkInterface(name=name, network_ref=LocalReference(name="default"), mac=mac, forwards=made or None)


def network(subnet: str = "10.0.2.0/24", provider: NetworkProvider = NetworkProvider.USER) -> Network:
    user = UserNetwork(subnet=subnet) if provider is NetworkProvider.USER else None
    return Network(metadata=ObjectMeta(name="default"), spec=NetworkSpec(provider=provider, user=user))


def plan(
    *nics: NetworkInterface,
    backend: Backend = Backend.SLIRP,
    before: Sequence[NetworkInterfaceStatus] = (),
    busy: Sequence[int] = (),
    on: Network | None = None,
    uid: str = UID,
) -> tuple[NicPlan, ...]:
    return plan_nics(
        uid,
        "web",
        [(index, one, on or network()) for index, one in enumerate(nics)],
        before,
        {index: Path(f"/run/vm/net{index}") for index in range(len(nics))},
        backend,
        lambda port: port.port not in busy,
    )


def test_macs_are_stable_local_and_differ() -> None:
    macs = {mac_address(f"{UID}{vm}", f"net{number}") for vm in range(50) for number in range(2)}
    assert len(macs) == 100
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    assert plan(nic())[0].mac == mac_address(UID, "net0")
    assert plan(nic(mac="02:00:00:00:00:01"))[0].mac == "02:00:00:00:00:01"


def test_slirp() -> None:
    (one,) = plan(
        nic("net0", {"guestPort": 22, "hostPort": 2222}, {"guestPort": 53, "hostPort": 5353, "protocol": "UDP"})
    )
    assert one.helper is None
    assert one.netdev == {
        "type": "user",
        "ipv4": True,
        "ipv6": False,
        "net": "10.0.2.0/24",
        "host": "10.0.2.2",
        "dns": "10.0.2.3",
        "dhcpstart": "10.0.2.15",
        "hostname": "web",
        "hostfwd": [{"str": "tcp:127.0.0.1:2222-10.0.2.15:22"}, {"str": "udp:127.0.0.1:5353-10.0.2.15:53"}],
    }


def test_passt() -> None:
    (one,) = plan(nic("net0", {"guestPort": 22, "hostPort": 2222}), backend=Backend.PASST, on=network("192.168.7.0/27"))
    assert one.netdev == {"type": "stream", "server": False, "addr": {"type": "unix", "path": "/run/vm/net0"}}
    assert one.helper is not None
    assert one.helper.socket == Path("/run/vm/net0")
    assert " ".join(one.helper.argv) == (
        "passt --foreground --quiet --one-off --ipv4-only --no-map-gw --socket /run/vm/net0 --address 192.168.7.15 "
        "--netmask 27 --gateway 192.168.7.2 --dns-forward 192.168.7.3 --tcp-ports 127.0.0.1/2222:22 --udp-ports none"
    )


def test_chosen_ports_are_the_same_again_and_differ_between_vms() -> None:
    def chosen(uid: str, **rest: Any) -> int:
        return plan(nic("net0", {"guestPort": 22}), uid=uid, **rest)[0].forwards[0].host_port

    first = chosen(UID)
    assert FIRST_PORT <= first <= LAST_PORT
    assert chosen(UID) == first
    assert chosen("another") != first
    assert chosen(UID, busy=[first]) != first


def test_the_port_of_the_last_start_is_taken_again_if_it_is_free() -> None:
    wish = {"name": "ssh", "guestPort": 22}
    (last,) = plan(nic("net0", wish), busy=[plan(nic("net0", wish))[0].forwards[0].host_port])
    before = NetworkInterfaceStatus(name="net0", mac=last.mac, forwards=list(last.forwards))
    assert plan(nic("net0", wish), before=[before])[0].forwards == last.forwards
    again = plan(nic("net0", wish), before=[before], busy=[last.forwards[0].host_port])[0].forwards
    assert again != last.forwards


def test_a_port_in_use_is_named() -> None:
    with pytest.raises(CarmelError) as caught:
        plan(nic("net0", {"guestPort": 22, "hostPort": 2222}), busy=[2222])
    assert caught.value.code == "PortInUse"
    assert "2222" in caught.value.message
    assert caught.value.field == "spec.networks[0].forwards[0].hostPort"


def test_a_choice_never_takes_what_somebody_asked_for() -> None:
    free = plan(nic("net0", {"guestPort": 80}))[0].forwards[0].host_port
    (one,) = plan(nic("net0", {"guestPort": 80}, {"guestPort": 81, "hostPort": free, "hostAddress": "0.0.0.0"}))
    assert one.forwards[1].host_port == free
    assert one.forwards[0].host_port != free


def test_two_nics_have_two_addresses_and_sockets() -> None:
    first, second = plan(nic("net0"), nic("net1"), backend=Backend.PASST)
    assert (first.address, second.address) == ("10.0.2.15", "10.0.2.16")
    assert first.mac != second.mac
    assert first.helper is not None
    assert second.helper is not None
    assert first.helper.name != second.helper.name
    assert first.helper.socket != second.helper.socket


def test_all_ports_taken() -> None:
    with pytest.raises(CarmelError) as caught:
        plan(nic("net0", {"guestPort": 22}), busy=range(FIRST_PORT, LAST_PORT + 1))
    assert caught.value.code == "PortInUse"


def test_other_providers_are_refused() -> None:
    with pytest.raises(CarmelError) as caught:
        plan(nic(), on=network(provider=NetworkProvider.BRIDGE))
    assert caught.value.code == "NotSupported"


def test_what_can_be_bound() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not can_bind(HostPort(Protocol.TCP, "127.0.0.1", port))
        assert not can_bind(HostPort(Protocol.TCP, "0.0.0.0", port))
    assert can_bind(HostPort(Protocol.TCP, "127.0.0.1", port))
    with pytest.raises(CarmelError) as caught:
        can_bind(HostPort(Protocol.TCP, "203.0.113.7", port))
    assert caught.value.code == "HostAddressUnknown"
