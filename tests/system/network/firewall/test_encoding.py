"""nft understands what Carmel loads: what nft lists and loads again is the same to the kernel."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from carmel.errors import Refused
from carmel.network.firewall import NftFirewall, PolicyRef
from carmel.network.firewall.nft_attributes import BRIDGE
from carmel.network.firewall.nft_tables import TABLE, NftTables
from carmel.resources.firewallpolicy import FirewallPolicySpec
from tests.fakes.firewall_contract import PORT, rules
from tests.system.network.firewall.dumped import dumped, of_family
from tests.system.network.firewall.wire import UntrackedTables, Wire
from tests.unit.network.firewall.worlds import World, worlds

_INET = 1
_NFT = shutil.which("nft") or "nft"


class InetTables(NftTables):
    """In the family of IPv4 and IPv6, where every kernel tracks connections: nothing is left out."""

    async def _exchange(self, sent: bytes) -> bytes:
        return await super()._exchange(of_family(sent, _INET))


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[Path, Path]]:
    with Wire(["uplink"]) as one, Wire(["uplink"]) as other:
        yield one.namespace, other.namespace


def _nft(namespace: Path, *words: str, given_: str = "") -> str:
    argv = ["nsenter", f"--net={namespace}", "--", _NFT, *words]
    ended = subprocess.run(argv, input=given_, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _same_when_listed(
    tables: NftTables, family: int, world: World, places: tuple[Path, Path], compared: Callable[[str], bool]
) -> None:
    ours, nfts = places
    firewall = NftFirewall(tables)
    try:
        asyncio.run(firewall.load(world.ruleset()))
        table = ["table", {BRIDGE: "bridge", _INET: "inet"}[family], TABLE]
        text = _nft(ours, "--numeric", "list", *table)
        _nft(nfts, "-f", "-", given_=f"add {' '.join(table)}\ndelete {' '.join(table)}\n{text}")
        loaded, again = asyncio.run(dumped(ours, family)), asyncio.run(dumped(nfts, family))
        assert loaded.keys() == again.keys()
        for name, one in loaded.items():
            if compared(name):
                assert again[name] == one, f"{name} in\n{text}"
        assert _nft(nfts, "--numeric", "list", *table) == text
        asyncio.run(firewall.remove())
    finally:
        firewall.close()


@settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(worlds)
def test_nft_reads_it_as_it_is_meant(places: tuple[Path, Path], world: World) -> None:
    _same_when_listed(UntrackedTables(places[0]), BRIDGE, world, places, lambda _name: True)


def test_nft_reads_what_is_about_connections(places: tuple[Path, Path]) -> None:
    firewall = NftFirewall(InetTables(places[0]))
    try:
        asyncio.run(firewall.load(rules(80)))
    except Refused:
        pytest.skip("this kernel does not track connections")
    finally:
        firewall.close()
    ingress = [
        {"ports": [{"port": 80}], "log": True},
        {"action": "Deny", "log": True},
        {"ports": [{"protocol": "UDP"}]},
    ]
    spec = FirewallPolicySpec.model_validate({"ingress": ingress, "egress": []})
    world = World({PolicyRef("default", "web"): spec}, [PORT])
    _same_when_listed(InetTables(places[0]), _INET, world, places, _is_about_connections)


def _is_about_connections(name: str) -> bool:
    """In that family nft asks for a packet's protocol in another way than we do, so that other rules differ."""
    return name.startswith(("rules of gate-", "rules of allow-")) or "/log" in name
