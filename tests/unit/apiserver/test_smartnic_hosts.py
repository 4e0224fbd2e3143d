"""What a SmartNIC lets the host do that it serves: its certificate, its trust, and binding functions to ports."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carmel.apiserver.connections import PeerCertificate
from carmel.apiserver.hostnames import host_of, is_host_name
from carmel.paths import Paths
from carmel.resources.core import SECRET
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.resources.network import NETWORK
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.port import PORT
from carmel.resources.rbac import CLUSTER_ROLE_BINDING
from carmel.resources.smartnic import SMART_NIC
from carmel.store.protocol import Stored
from tests.stores import open_store
from tests.unit.apiserver.asgi import Answer, call
from tests.unit.apiserver.conftest import Served
from tests.unit.apiserver.harness import NAMESPACES, NIC, NO_VMS, SmartNicApp, make_smartnic_app

API = "/apis/carmel.dev/v1alpha1"
PORTS = f"{API}/namespaces/default/ports"
POLICIES = f"{API}/namespaces/default/firewallpolicies"
CERTIFICATE = b"what stands for a certificate's DER form"
SHOWN = PeerCertificate("system:host:web", ("system:hosts",), hashlib.sha256(CERTIFICATE).hexdigest())
ADMIN = {"authorization": "Bearer secret"}


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **fields}


def port(name: str, owner: str = "uid-1", function: str | None = None) -> dict[str, Any]:
    number = sum(name.encode()) % 256
    spec: dict[str, Any] = {
        "networkRef": {"name": "lan"},
        "vmRef": {"name": "vm"},
        "nic": "eth0",
        "owner": owner,
        "mac": f"52:54:00:00:00:{number:02x}",
    }
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec | ({"function": function} if function else {}),
    }


@pytest.fixture
async def nic(tmp_path: Path) -> AsyncIterator[SmartNicApp]:
    paths = Paths(state=tmp_path / "nic", runtime=tmp_path / "run", cache=tmp_path / "cache")
    paths.state.mkdir()
    async with open_store(paths.state, *NAMESPACES) as store:
        made = make_smartnic_app(store, paths)
        known = made.credentials.host_certificate("web")
        known.parent.mkdir(parents=True)
        known.write_text(ssl.DER_cert_to_PEM_cert(CERTIFICATE))
        await store.create(SMART_NIC, named(NIC))
        functions = [{"id": "pf0vf0", "kind": "net"}, {"id": "pf0vf1", "kind": "net"}, {"id": "disk0", "kind": "nvme"}]
        await store.replace(SMART_NIC, named(NIC, status={"functions": functions}), subresource="status")
        await store.create(NETWORK, named("lan", spec={"provider": "nat", "nat": {"subnet": "10.7.0.0/24"}}))
        for name in ("a", "b"):
            await store.create(PORT, port(name))
        await store.create(SECRET, {"metadata": {"name": "keys", "namespace": "default"}})
        await store.create(
            FIREWALL_POLICY, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"vmSelector": {}}}
        )
        await made.app.start()
        yield made
        made.app.shared.stopping.set()
        await made.app.stop()


async def ask(
    nic: SmartNicApp,
    method: str,
    target: str,
    body: Any = None,
    *,
    shown: PeerCertificate | None = SHOWN,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    return await call(nic.app, method, target, body, headers, state={"peer_certificate": shown})


async def trusting(nic: SmartNicApp, trust: str) -> None:
    """The NIC's administrator says how far its host is trusted, and it counts."""
    answer = await ask(
        nic, "PATCH", f"{API}/smartnics/{NIC}", {"spec": {"trust": trust}}, headers=ADMIN | merge_patch()
    )
    assert answer.status == 200
    authorizer = nic.app._authorizer
    async with asyncio.timeout(10):
        while authorizer._trust() != trust:
            await ask(nic, "GET", "/version")


def merge_patch() -> dict[str, str]:
    return {"content-type": "application/merge-patch+json"}


async def bind(nic: SmartNicApp, name: str, function: str | None, **fields: Any) -> Answer:
    return await ask(nic, "POST", f"{PORTS}/{name}/binding", {"function": function, **fields})


async def stored_port(nic: SmartNicApp, name: str) -> Stored:
    return await nic.store.get(PORT, "default", name)


# -- who it is --------------------------------------------------------------------------------------------------------
async def test_a_host_is_known_by_the_certificate_that_was_signed_last(nic: SmartNicApp) -> None:
    answer = await ask(
        nic,
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {},
        headers={"content-type": "application/json"},
    )
    assert answer.json()["status"]["userInfo"] == {
        "username": "system:host:web",
        "groups": ["system:authenticated", "system:hosts"],
    }
    nic.credentials.host_certificate("web").write_text(ssl.DER_cert_to_PEM_cert(b"the next one"))
    answer = await ask(nic, "GET", PORTS)
    assert (answer.status, answer.json()["details"]["carmel"]["code"]) == (401, "HostNotInvited")
    nic.credentials.host_certificate("web").unlink()
    assert (await ask(nic, "GET", PORTS)).status == 401


@pytest.mark.parametrize(
    "shown",
    [
        replace(SHOWN, common_name="system:host:other"),
        replace(SHOWN, common_name="web"),
        replace(SHOWN, common_name="system:host:"),
        replace(SHOWN, common_name="system:host:../../admin"),
        replace(SHOWN, common_name="system:host:../web"),
        replace(SHOWN, organisations=()),
        replace(SHOWN, organisations=("system:masters",)),
        replace(SHOWN, organisations=("system:hosts", "system:masters")),
        replace(SHOWN, sha256="0" * 64),
        None,
    ],
)
async def test_no_other_certificate_is_a_host(nic: SmartNicApp, shown: PeerCertificate | None) -> None:
    assert (await ask(nic, "GET", PORTS, shown=shown)).status == 401


async def test_a_token_wins_over_a_certificate(nic: SmartNicApp) -> None:
    assert (await ask(nic, "GET", POLICIES, headers=ADMIN)).status == 200
    assert (await ask(nic, "GET", PORTS, headers={"authorization": "Bearer wrong"})).status == 401


async def test_an_ordinary_host_knows_nobody_by_a_certificate(served: Served) -> None:
    answer = await call(served.app, "GET", PORTS, state={"peer_certificate": SHOWN})
    assert answer.status == 401


def test_names_of_hosts() -> None:
    assert host_of("system:host:pi-4", ("system:hosts",)) == "pi-4"
    assert is_host_name("a" * 52)
    assert not any(is_host_name(name) for name in ("", "a" * 53, "Web", "a.b", "-a", "a-", "a/b", "a\n"))


# -- what it may do ---------------------------------------------------------------------------------------------------
ALL_PLURALS = ("firewallpolicies", "virtualmachines", "images", "volumes", "tasks", "ports")


async def test_a_restricted_host_reads_three_kinds_and_nothing_else(nic: SmartNicApp) -> None:
    readable = (f"{API}/smartnics/{NIC}", f"{API}/networks", f"{PORTS}/a", f"{API}/ports", "/version", "/apis")
    assert [(await ask(nic, "GET", target)).status for target in readable] == [200] * len(readable)
    hidden = (
        POLICIES,
        f"{POLICIES}/p",
        "/api/v1/namespaces/default/secrets/keys",
        "/api/v1/namespaces/carmel-system/secrets",
        "/api/v1/events",
        "/api/v1/namespaces",
        f"{API}/hosts",
        f"{API}/datastores",
        f"{API}/namespaces/default/virtualmachines/x/log",
        f"{PORTS}/a/status",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/coordination.k8s.io/v1/leases",
    )
    assert [(await ask(nic, "GET", target)).status for target in hidden] == [403] * len(hidden)


async def test_a_restricted_host_writes_nothing(nic: SmartNicApp) -> None:
    targets = [f"{API}/smartnics/{NIC}", f"{API}/smartnics/{NIC}/status", f"{API}/networks/lan", f"{PORTS}/a"]
    targets += [f"{PORTS}/a/status", f"{POLICIES}/p", "/api/v1/namespaces/default", "/api/v1/namespaces/team"]
    targets += ["/api/v1/namespaces/default/secrets/keys", f"{API}/networks/lan/status"]
    for method, target in itertools.product(("PUT", "PATCH", "DELETE"), targets):
        if method == "DELETE" and target.endswith("/status"):
            continue
        answer = await ask(nic, method, target, {}, headers=merge_patch())
        assert answer.status == 403, (method, target)
    for plural in ALL_PLURALS:
        target = f"{API}/namespaces/default/{plural}"
        assert [(await ask(nic, method, target, named("x"))).status for method in ("POST", "DELETE")] == [403, 403]
    for target in (f"{API}/networks", f"{API}/smartnics", "/api/v1/namespaces", "/api/v1/namespaces/default/secrets"):
        assert (await ask(nic, "POST", target, named("x"))).status == 403


async def test_with_full_trust_it_writes_networks_ports_policies_and_namespaces(nic: SmartNicApp) -> None:
    await trusting(nic, "Full")
    policy = {"metadata": {"name": "mine"}, "spec": {"vmSelector": {}}}
    network = named("more", spec={"provider": "nat", "nat": {"subnet": "10.8.0.0/24"}})
    written = [
        ("POST", f"{API}/networks", network, 201),
        ("POST", PORTS, {**port("c"), "metadata": {"name": "c"}}, 201),
        ("POST", POLICIES, policy, 201),
        ("DELETE", f"{POLICIES}/mine", None, 200),
        ("DELETE", f"{PORTS}/c", None, 200),
        ("POST", "/api/v1/namespaces", named("shop"), 201),
        ("PATCH", "/api/v1/namespaces/shop", {"metadata": {"labels": {"a": "b"}}}, 200),
    ]
    for method, target, body, status in written:
        headers = merge_patch() if method == "PATCH" else None
        assert (await ask(nic, method, target, body, headers=headers)).status == status, target


async def test_even_full_trust_has_its_ends(nic: SmartNicApp) -> None:
    await trusting(nic, "Full")
    refused = [
        ("PATCH", f"{API}/smartnics/{NIC}", {"spec": {"trust": "Full"}}),
        ("PATCH", f"{PORTS}/a/status", {}),
        ("GET", "/api/v1/namespaces/default/secrets/keys", None),
        ("POST", "/api/v1/namespaces/default/secrets", named("x")),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", named("x")),
        ("DELETE", "/api/v1/namespaces/default", None),
        ("PATCH", "/api/v1/namespaces/carmel-system", {"metadata": {"labels": {"a": "b"}}}),
        ("POST", f"{API}/namespaces/carmel-system/ports", named("x")),
        ("GET", "/api/v1/events", None),
    ]
    for method, target, body in refused:
        answer = await ask(nic, method, target, body, headers=merge_patch() if method == "PATCH" else None)
        assert answer.status == 403, target


async def test_no_binding_of_roles_gives_a_host_more(nic: SmartNicApp) -> None:
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "Group", "name": "system:hosts"}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "admin"}
    await nic.store.create(CLUSTER_ROLE_BINDING, named("oops", roleRef=role, subjects=[subject]))
    async with asyncio.timeout(10):
        while not nic.app._authorizer._bound():
            await ask(nic, "GET", "/version")
    assert (await ask(nic, "GET", POLICIES)).status == 403


async def test_without_an_object_of_its_own_a_nic_trusts_little(nic: SmartNicApp) -> None:
    await trusting(nic, "Full")
    await nic.store.delete(SMART_NIC, None, NIC)
    async with asyncio.timeout(10):
        while nic.app._authorizer._trust() != "Restricted":
            await ask(nic, "GET", "/version")
    assert (await ask(nic, "GET", POLICIES)).status == 403


async def test_another_nics_object_says_nothing(nic: SmartNicApp) -> None:
    await nic.store.create(SMART_NIC, named("other", spec={"trust": "Full"}))
    assert (await ask(nic, "GET", f"{API}/smartnics/other")).status == 200
    assert (await ask(nic, "GET", POLICIES)).status == 403


async def test_what_may_be_done_is_told(nic: SmartNicApp) -> None:
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    async def may(verb: str, resource: str, subresource: str = "") -> bool:
        attributes = {"verb": verb, "group": "carmel.dev", "resource": resource, "subresource": subresource}
        answer = await ask(nic, "POST", review, {"spec": {"resourceAttributes": attributes}})
        return bool(answer.json()["status"]["allowed"])

    assert await may("create", "ports", "binding")
    assert not await may("create", "ports")
    rules = await ask(nic, "POST", review.replace("access", "rules"), {"spec": {"namespace": "default"}})
    said = rules.json()["status"]["resourceRules"]
    assert {
        "verbs": ["create"],
        "apiGroups": ["carmel.dev"],
        "resources": ["ports/binding", "nvmenamespaces/binding"],
    } in said


async def test_a_host_sees_the_cpu_time_and_no_more_of_the_metrics(nic: SmartNicApp) -> None:
    text = (await ask(nic, "GET", "/metrics")).body.decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names == {"process_cpu_seconds_total"}
    everything = (await ask(nic, "GET", "/metrics", headers=ADMIN)).body.decode()
    assert "carmel_store_objects" in everything


async def test_a_smartnic_takes_no_vms(nic: SmartNicApp) -> None:
    answer = await ask(nic, "POST", f"{API}/namespaces/default/virtualmachines", named("x"), headers=ADMIN)
    assert (answer.status, answer.json()["message"]) == (422, NO_VMS)
    assert (await ask(nic, "GET", f"{API}/virtualmachines", headers=ADMIN)).json()["items"] == []


# -- binding ----------------------------------------------------------------------------------------------------------
async def test_binding_sets_the_function_and_nothing_else(nic: SmartNicApp) -> None:
    before = (await stored_port(nic, "a")).json()
    answer = await bind(nic, "a", "pf0vf0")
    assert answer.status == 201
    after = (await stored_port(nic, "a")).json()
    assert after["spec"] == {**before["spec"], "function": "pf0vf0"}
    assert {**after["metadata"], "managedFields": None} == {
        **before["metadata"],
        "managedFields": None,
        "resourceVersion": after["metadata"]["resourceVersion"],
        "generation": before["metadata"]["generation"] + 1,
    }
    assert answer.json() == after
    assert nic.told == [("a", "FunctionPlugged", "system:host:web plugged in the function pf0vf0")]


async def test_binding_again_changes_nothing_and_null_unplugs(nic: SmartNicApp) -> None:
    await bind(nic, "a", "pf0vf0")
    version = (await stored_port(nic, "a")).resource_version
    assert (await bind(nic, "a", "pf0vf0")).status == 201
    assert (await stored_port(nic, "a")).resource_version == version
    assert (await bind(nic, "a", "pf0vf1")).status == 201
    assert (await bind(nic, "a", None)).status == 201
    assert "function" not in (await stored_port(nic, "a")).json()["spec"]
    assert [message for _, _, message in nic.told] == [
        "system:host:web plugged in the function pf0vf0",
        "system:host:web plugged in the function pf0vf1 instead of pf0vf0",
        "system:host:web unplugged the function pf0vf1",
    ]


async def test_a_function_is_in_one_port(nic: SmartNicApp) -> None:
    await bind(nic, "a", "pf0vf0")
    answer = await bind(nic, "b", "pf0vf0")
    error = answer.json()["details"]["carmel"]
    assert (answer.status, error["code"]) == (409, "FunctionInUse")
    assert error["message"] == "the function pf0vf0 is plugged into the port default/a"
    await bind(nic, "a", None)
    assert (await bind(nic, "b", "pf0vf0")).status == 201


async def test_of_two_at_once_one_gets_it(nic: SmartNicApp) -> None:
    answers = await asyncio.gather(bind(nic, "a", "pf0vf1"), bind(nic, "b", "pf0vf1"))
    assert sorted(answer.status for answer in answers) == [201, 409]


async def test_only_functions_that_the_nic_shows(nic: SmartNicApp) -> None:
    for function in ("pf0vf9", "disk0", "p0", "x" * 200):
        answer = await bind(nic, "a", function)
        assert (answer.status, answer.json()["details"]["carmel"]["code"]) == (422, "NoSuchFunction")
    assert answer.json()["details"]["carmel"]["hint"] == "it shows pf0vf0, pf0vf1"
    await nic.store.delete(SMART_NIC, None, NIC)
    assert (await bind(nic, "a", "pf0vf0")).status == 422


async def test_a_bare_machines_port_is_its_administrators_to_plug(nic: SmartNicApp) -> None:
    await nic.store.create(PORT, port("metal", owner="host", function="pf0vf0"))
    assert (await bind(nic, "metal", None)).status == 403
    assert (await bind(nic, "a", "pf0vf0")).status == 409
    answer = await ask(nic, "POST", f"{PORTS}/metal/binding", {"function": "pf0vf1"}, headers=ADMIN)
    assert answer.status == 201


async def test_a_binding_of_another_state_is_refused(nic: SmartNicApp) -> None:
    stored = await stored_port(nic, "a")
    assert (await bind(nic, "a", "pf0vf0", metadata={"uid": "other"})).status == 409
    assert (await bind(nic, "a", "pf0vf0", metadata={"resourceVersion": "1"})).status == 409
    right = {"uid": stored.uid, "resourceVersion": stored.resource_version}
    assert (await bind(nic, "a", "pf0vf0", metadata=right)).status == 201


async def test_a_trial_binds_nothing(nic: SmartNicApp) -> None:
    answer = await ask(nic, "POST", f"{PORTS}/a/binding?dryRun=All", {"function": "pf0vf0"})
    assert answer.json()["spec"]["function"] == "pf0vf0"
    assert "function" not in (await stored_port(nic, "a")).json()["spec"]
    assert nic.told == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"function": ""},
        {"function": 3},
        {"function": "pf0vf0", "spec": {"mac": "52:54:00:00:00:01"}},
        {"function": "pf0vf0", "metadata": []},
        {"function": "pf0vf0", "metadata": {"uid": 1}},
        b"function",
    ],
)
async def test_what_is_no_binding(nic: SmartNicApp, body: Any) -> None:
    assert (await ask(nic, "POST", f"{PORTS}/a/binding", body)).status == 400


async def test_where_there_is_nothing_to_bind(nic: SmartNicApp, served: Served) -> None:
    assert (await bind(nic, "nosuch", "pf0vf0")).status == 404
    assert (await ask(nic, "GET", f"{PORTS}/a/binding")).status == 405
    await served.store.create(PORT, port("a"))
    answer = await call(served.app, "POST", f"{PORTS}/a/binding", {"function": "pf0vf0"})
    assert (answer.status, answer.json()["details"]["carmel"]["code"]) == (404, "NoSmartNIC")


async def test_a_namespace_is_bound_without_being_seen(nic: SmartNicApp) -> None:
    source = {"remote": {"address": "192.0.2.7", "subsystemNQN": "nqn.2014-08.org.nvmexpress:uuid:secret-place"}}
    for name in ("db", "web"):
        await nic.store.create(NVME_NAMESPACE, named(name, spec={"source": source}))
    namespaces = f"{API}/nvmenamespaces"
    for method, target in (("GET", namespaces), ("GET", f"{namespaces}/db"), ("DELETE", f"{namespaces}/db")):
        assert (await ask(nic, method, target)).status == 403
    bound = await ask(nic, "POST", f"{namespaces}/db/binding", {"function": "disk0"})
    assert (bound.status, bound.json()["status"]) == (201, "Success")
    assert b"192.0.2.7" not in bound.body
    assert (await nic.store.get(NVME_NAMESPACE, None, "db")).json()["spec"] == {
        "source": {"remote": {**source["remote"], "port": 4420, "namespaceID": 1}},
        "function": "disk0",
        "stallSeconds": 600,
    }
    assert (await ask(nic, "POST", f"{namespaces}/web/binding", {"function": "disk0"})).status == 409
    # A network function shows no disk, nor the other way round.
    for target, function in ((f"{namespaces}/web/binding", "pf0vf0"), (f"{PORTS}/a/binding", "disk0")):
        refused = await ask(nic, "POST", target, {"function": function})
        assert (refused.status, b"no network" in refused.body or b"no NVMe" in refused.body) == (422, True)
    assert (await ask(nic, "POST", f"{namespaces}/db/binding", {"function": None})).status == 201
    assert "function" not in (await nic.store.get(NVME_NAMESPACE, None, "db")).json()["spec"]
    assert [reason for _name, reason, _message in nic.told] == ["FunctionPlugged", "FunctionUnplugged"]


async def test_nothing_is_plugged_into_a_port_that_is_elsewhere(nic: SmartNicApp) -> None:
    """Whoever was let out of it would be one whom policies let in."""
    remote = port("far", function="pf0vf1")
    remote["spec"] |= {"remote": True, "addresses": ["10.9.0.9"]}
    await nic.store.create(PORT, remote)
    for trust in ("Restricted", "Full"):
        await trusting(nic, trust)
        answer = await bind(nic, "far", "pf0vf0")
        assert (answer.status, answer.json()["details"]["carmel"]["code"]) == (403, "PortNotBindable")
    assert (await stored_port(nic, "far")).json()["spec"]["function"] == "pf0vf1"
    # What is in it may go.
    assert (await bind(nic, "far", None)).status == 201
