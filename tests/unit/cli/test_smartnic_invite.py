"""``carmel smartnic invite``, on a NIC whose daemon made its authority."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from carmel.apiserver.pki import authority
from tests.unit.cli.conftest import Carmel


@pytest.fixture
def nic(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CARMEL_STATE_DIR", str(home / "state"))
    pki = home / "state" / "pki"
    pki.mkdir(parents=True)
    authority(pki)
    return pki


def test_an_invitation_is_what_the_host_applies(nic: Path, lone: Carmel) -> None:
    told = lone("smartnic", "invite", "--host", "server-1", "--name", "bf")
    assert told.status == 0, told.err
    secret, smart_nic = yaml.safe_load_all(told.out)
    assert secret["metadata"] == {"name": "smartnic-bf", "namespace": "carmel-system"}
    assert set(secret["stringData"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert secret["stringData"]["ca.crt"] == (nic / "ca.crt").read_text()
    assert secret["stringData"]["tls.crt"] == (nic / "hosts" / "server-1.crt").read_text()
    assert smart_nic["spec"] == {
        "address": "192.168.100.2:17443",
        "credentialsSecretRef": {"name": secret["metadata"]["name"]},
    }


def test_a_file_is_its_owners_alone(nic: Path, lone: Carmel, tmp_path: Path) -> None:
    file = tmp_path / "join.yaml"
    file.write_text("older")
    file.chmod(0o644)
    told = lone("smartnic", "invite", "--host", "server-1", "-f", str(file))
    assert told.out == f"{file} has the host's key. Next, on server-1: carmel apply -f join.yaml\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "tls.key" in file.read_text()
    refused = lone("smartnic", "invite", "--host", "server-1", "-f", str(tmp_path / "no" / "join.yaml"))
    assert (refused.status, "FileNotWritable" in refused.err or "cannot be written" in refused.err) == (5, True)


def test_where_there_is_no_authority(home: Path, lone: Carmel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARMEL_STATE_DIR", str(home / "nothing"))
    told = lone("smartnic", "invite", "--host", "server-1")
    assert told.status == 5
    assert "there is no certificate authority" in told.err


def test_names_and_addresses_that_cannot_be(nic: Path, lone: Carmel) -> None:
    assert lone("smartnic", "invite", "--host", "Server_1").status == 2
    told = lone("smartnic", "invite", "--host", "x" * 60)
    assert (told.status, "is not a host's name" in told.err) == (5, True)
    told = lone("smartnic", "invite", "--host", "x", "--address", "nowhere")
    assert (told.status, "no address with a port" in told.err) == (5, True)
    assert not (nic / "hosts").exists()
