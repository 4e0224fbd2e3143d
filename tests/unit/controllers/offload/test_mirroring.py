"""A NIC that trusts its host is kept in step by the host's daemon; of one that does not it says what is to be done."""

from __future__ import annotations

import orjson
import pytest

from carmel.apiserver import openapi
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from carmel.smartnic.link import NicView
from tests.fakes.nic import FakeNic
from tests.unit.controllers.offload.world import OffloadWorld


def in_sync(found: JsonObject) -> JsonObject:
    listed = (found.get("status") or {}).get("conditions") or ()
    one: JsonObject = next((one for one in listed if one["type"] == "InSync"), {})
    return one


async def until_there(world: OffloadWorld, plural: str, name: str, *, there: bool = True) -> None:
    def holds(view: NicView) -> bool:
        return any(key[1] == name for key in view.objects.get(plural, {})) is there

    await world.links.wait("dpu", holds, 20)


async def until_in_sync(world: OffloadWorld, status: str = "True") -> JsonObject:
    found = await world.until(SMART_NIC, "dpu", lambda found: in_sync(found).get("status") == status)
    return in_sync(found)


async def test_a_nic_that_does_not_trust_its_host_is_only_spoken_of(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.make_port("web", "uid-web")
        found = await until_in_sync(world, "False")
        assert found["reason"] == "SyncNeeded"
        assert found["message"].endswith("create Network lan, create Port default/web-eth0")
        assert "carmel smartnic sync dpu" in found["message"]
        assert (await nic.store.list(PORT)).items == []


async def test_a_nic_that_trusts_its_host_gets_all(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.trust("Full")
    await world.store.create(NAMESPACE, {"metadata": {"name": "team", "labels": {"tier": "a"}}})
    policy = {"metadata": {"name": "deny", "namespace": "team"}, "spec": {"vmSelector": {}, "policyTypes": ["Ingress"]}}
    async with world.daemon():
        await world.join(nic)
        spec = {
            "networkRef": {"name": "lan"},
            "vmRef": {"name": "web"},
            "nic": "eth0",
            "owner": "uid-web",
            "mac": "52:54:00:00:00:01",
        }
        await world.store.create(PORT, {"metadata": {"name": "web-eth0", "namespace": "team"}, "spec": spec})
        await until_there(world, "ports", "web-eth0")
        await until_in_sync(world)
        network = (await nic.store.get(NETWORK, None, "lan")).json()
        assert (network["spec"]["dataPlane"], network["metadata"]["labels"]) == (
            "Host",
            {"carmel.dev/mirrored-from": "server-1"},
        )
        await world.store.create(FIREWALL_POLICY, policy)
        await until_there(world, "firewallpolicies", "deny")
        assert (await nic.store.get(NAMESPACE, None, "team")).json()["metadata"]["labels"]["tier"] == "a"
        # And all of it goes again.
        await world.store.delete(PORT, "team", "web-eth0")
        await until_there(world, "ports", "web-eth0", there=False)
        await until_there(world, "firewallpolicies", "deny", there=False)
        await until_in_sync(world)


async def test_trust_that_comes_later_is_used_at_once(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.make_port("web", "uid-web")
        await until_in_sync(world, "False")
        await nic.trust("Full")
        await until_there(world, "ports", "web-eth0")
        await until_in_sync(world)


async def test_a_vm_gets_its_port_and_its_function_without_anybody(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.trust("Full")
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await world.make_port("web", "uid-web")
        await until_there(world, "ports", "web-eth0")
        assert (await world.plan("web", "uid-web")).config.function == "0000:01:00.0"


async def test_what_somebody_changed_on_the_nic_is_changed_back(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.trust("Full")
    async with world.daemon():
        await world.join(nic)
        await world.make_port("web", "uid-web")
        await until_there(world, "ports", "web-eth0")
        await until_in_sync(world)
        port = (await nic.store.get(PORT, "default", "web-eth0")).json()
        port["spec"]["vlan"] = 99
        port["metadata"].pop("resourceVersion")
        await nic.store.replace(PORT, port)

        def as_it_was(view: NicView) -> bool:
            port = view.objects["ports"]["default", "web-eth0"]
            return port["metadata"]["generation"] == 3 and "vlan" not in port["spec"]

        await world.links.wait("dpu", as_it_was, 20)


@pytest.mark.parametrize("trust", ["Restricted", "Full"])
async def test_a_nic_of_another_version_is_asked_what_it_knows(
    world: OffloadWorld, nic: FakeNic, monkeypatch: pytest.MonkeyPatch, trust: str
) -> None:
    """One without ``mtu``: it is left out, which is said, and nothing is tried again and again."""
    whole = openapi.v3_document("carmel.dev", "v1alpha1")
    assert whole is not None
    document = orjson.loads(whole)
    del document["components"]["schemas"]["dev.carmel.v1alpha1.Network"]["properties"]["spec"]["properties"]["mtu"]
    monkeypatch.setattr(openapi, "v3_document", lambda *_version: orjson.dumps(document))
    await nic.trust(trust)
    await nic.tell(carmelVersion="0.0.9")
    lan = {"provider": "bridge", "bridge": {"uplinks": ["p0"]}}
    mirrored = {"name": "lan", "labels": {"carmel.dev/mirrored-from": "server-1"}}
    await nic.store.create(NETWORK, {"metadata": mirrored, "spec": lan})
    async with world.daemon():
        await world.join(nic)
        network = (await world.store.get(NETWORK, None, "lan")).json()
        network["spec"]["mtu"] = 1400
        network["metadata"].pop("resourceVersion")
        await world.store.replace(NETWORK, network)

        def says_so(found: JsonObject) -> bool:
            return in_sync(found).get("reason") == "FieldsLeftOut"

        found = in_sync(await world.until(SMART_NIC, "dpu", says_so))
        assert found["status"] == "False"
        assert found["message"].startswith("the NIC's version does not know of Network lan: spec.mtu")
        assert "mtu" not in (await nic.store.get(NETWORK, None, "lan")).json()["spec"]
