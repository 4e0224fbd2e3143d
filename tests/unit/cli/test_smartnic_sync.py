"""``carmel smartnic sync``: the difference is shown, and written with the credentials of the NIC's administrator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from carmel.cli.smartnic_sync import line_of, through_relay
from carmel.client.context_file import save_context
from carmel.client.endpoint import HttpsEndpoint, UnixEndpoint
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from carmel.smartnic.kinds import PORTS
from carmel.smartnic.mirror import MIRRORED_FROM, Change, Verb
from tests.fakes.nic import TOKEN, NicThread
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World

LAN = {"provider": "bridge", "bridge": {"uplinks": ["p0"]}, "dataPlane": "SmartNIC"}
WEB = {
    "networkRef": {"name": "lan"},
    "vmRef": {"name": "web"},
    "nic": "eth0",
    "owner": "uid-web",
    "mac": "52:54:00:00:00:01",
}


def put(world: World, kind: Kind, obj: JsonObject, status: JsonObject | None = None) -> None:
    world.do(lambda store: store.create(kind, obj))
    if status is not None:
        body = {"metadata": obj["metadata"], "status": status}
        world.do(lambda store: store.replace(kind, body, subresource="status"))


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("host")) as running:
        put(running, NETWORK, {"metadata": {"name": "lan"}, "spec": LAN})
        put(
            running, PORT, {"metadata": {"name": "web-eth0", "namespace": "lab", "labels": {"app": "web"}}, "spec": WEB}
        )
        yield running


@pytest.fixture
def nic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NicThread]:
    with NicThread(tmp_path_factory.mktemp("nic")) as running:
        yield running


@pytest.fixture
def carmel(home: Path, host: World, nic: NicThread, lone: Carmel, monkeypatch: pytest.MonkeyPatch) -> Carmel:
    """``carmel`` on the host, with a context of the NIC's administrator."""
    monkeypatch.setenv("CARMEL_RUN_DIR", str(host.folder))
    status = {"relay": f"https://{nic.nic.address}", "host": {"name": "pi"}}
    put(host, SMART_NIC, {"metadata": {"name": "dpu"}, "spec": {"address": "192.168.100.2:17443"}}, status)
    ca = (nic.nic.paths.pki / "ca.crt").read_text()
    # The relay leads there; the certificate is checked against the name in the context.
    save_context("dpu", HttpsEndpoint("192.168.100.2", 17443, ca=ca, token=TOKEN, server_name="127.0.0.1"))
    return lone


def on_nic(nic: NicThread, kind: Kind, namespace: str | None, name: str) -> JsonObject:
    async def get(running: object) -> JsonObject:
        return (await nic.nic.store.get(kind, namespace, name)).json()

    return nic.do(get)


def test_it_is_shown_then_made_then_there(carmel: Carmel, host: World, nic: NicThread) -> None:
    shown = carmel("smartnic", "sync", "dpu", "--dry-run")
    assert shown.status == 0, shown.err
    assert shown.out.splitlines() == ["create Namespace lab", "create Network lan", "create Port lab/web-eth0"]
    assert nic.do(lambda running: running.store.list(PORT)).items == []

    made = carmel("smartnic", "sync", "dpu", "--yes")
    assert made.status == 0, made.err
    assert made.out.splitlines()[3:] == ["Namespace lab created", "Network lan created", "Port lab/web-eth0 created"]
    port = on_nic(nic, PORT, "lab", "web-eth0")
    assert port["metadata"]["labels"] == {"app": "web", MIRRORED_FROM: "pi"}
    assert on_nic(nic, NETWORK, None, "lan")["spec"]["dataPlane"] == "Host"
    assert on_nic(nic, NAMESPACE, None, "lab")["metadata"]["labels"][MIRRORED_FROM] == "pi"

    again = carmel("smartnic", "sync", "dpu", "--yes")
    assert again.out == "SmartNIC dpu has all that it should have\n"

    spec = {**WEB, "vlan": 20}
    host.do(lambda store: store.replace(PORT, {"metadata": {"name": "web-eth0", "namespace": "lab"}, "spec": spec}))
    changed = carmel("smartnic", "sync", "dpu", "--yes", "-o", "yaml")
    told = yaml.safe_load(changed.out)
    assert told["changes"][0]["verb"] == "update"
    assert on_nic(nic, PORT, "lab", "web-eth0")["spec"]["vlan"] == 20

    host.do(lambda store: store.delete(PORT, "lab", "web-eth0"))
    gone = carmel("smartnic", "sync", "dpu", "--yes")
    assert "delete Port lab/web-eth0" in gone.out


def test_nothing_is_changed_unasked(carmel: Carmel, nic: NicThread) -> None:
    outcome = carmel("smartnic", "sync", "dpu")
    assert outcome.status == 5
    assert "there is no terminal to ask on" in outcome.err
    assert nic.do(lambda running: running.store.list(PORT)).items == []


def test_without_credentials_it_says_where_they_come_from(carmel: Carmel) -> None:
    outcome = carmel("smartnic", "sync", "dpu", "--dry-run", "--nic-context", "none")
    assert outcome.status == 3
    assert "on the NIC `carmel kubeconfig` prints one" in outcome.err
    itself = carmel("smartnic", "sync", "dpu", "--dry-run", "--nic-context", "local")
    assert "not the NIC" in itself.err


def test_a_context_that_leads_elsewhere_is_a_way_of_its_own(carmel: Carmel) -> None:
    save_context("nowhere", HttpsEndpoint("127.0.0.1", 9, token=TOKEN))
    outcome = carmel("smartnic", "sync", "dpu", "--dry-run", "--nic-context", "nowhere")
    assert "https://127.0.0.1:9 cannot be reached" in outcome.err


def test_a_token_that_is_none_is_refused_by_the_nic(carmel: Carmel, nic: NicThread) -> None:
    ca = (nic.nic.paths.pki / "ca.crt").read_text()
    save_context("wrong", HttpsEndpoint("192.168.100.2", 17443, ca=ca, token="x" * 43, server_name="127.0.0.1"))
    outcome = carmel("smartnic", "sync", "dpu", "--yes", "--nic-context", "wrong")
    assert outcome.status == 5
    assert "Unauthorized" in outcome.err


def test_a_nic_that_nobody_looked_at(carmel: Carmel, host: World) -> None:
    put(host, SMART_NIC, {"metadata": {"name": "new"}})
    outcome = carmel("smartnic", "sync", "new", "--dry-run")
    assert "was not looked at" in outcome.err


# -- the way there ----------------------------------------------------------------------------------------------------
NIC = HttpsEndpoint("192.168.100.2", 17443, ca="CA", token="t")


def test_through_the_relay_the_nic_is_still_checked_by_its_own_name() -> None:
    here = through_relay(UnixEndpoint(Path("/run/carmel/api.sock")), "https://127.0.0.1:17460", NIC)
    assert (str(here), here.server_name, here.token, here.ca) == ("https://127.0.0.1:17460", "192.168.100.2", "t", "CA")


def test_from_elsewhere_the_relay_is_where_the_host_is() -> None:
    host = HttpsEndpoint("server-1.example", 17443)
    assert str(through_relay(host, "https://127.0.0.1:17460", NIC)) == "https://server-1.example:17460"
    assert str(through_relay(host, "https://10.0.0.5:17460", NIC)) == "https://10.0.0.5:17460"


def test_of_a_port_elsewhere_the_addresses_are_named() -> None:
    body = {"spec": {**WEB, "remote": True, "addresses": ["10.0.0.7", "fd00::7"]}}
    line = line_of(Change(Verb.CREATE, PORTS, "lab", "web-eth0", body))
    assert line == "create Port lab/web-eth0: remote, 10.0.0.7, fd00::7"


def test_what_is_changed_is_named() -> None:
    patch = {"metadata": {"labels": {"carmel.dev/host": "a", "app": None}}, "spec": {"trunk": [1, 2]}}
    fields = ("metadata.labels.carmel.dev/host", "metadata.labels.app", "spec.trunk")
    assert line_of(Change(Verb.UPDATE, PORTS, "lab", "web-eth0", patch, fields)) == (
        "update Port lab/web-eth0: metadata.labels.carmel.dev/host = a, metadata.labels.app removed, "
        "spec.trunk = [1, 2]"
    )
