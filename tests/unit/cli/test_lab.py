"""``carmel lab``: its profiles, its keys, and what it refuses. Machines are really made in ``tests/system/lab``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from carmel.cli.lab_keys import LONE_ADDRESS, NIC_ADDRESS, make_keys, make_lone_nic_keys, make_nic_keys
from carmel.cli.lab_profiles import (
    API,
    LAB_LABEL,
    MICRO,
    SIZE_LABEL,
    SMART_NIC,
    LabMachine,
    Profile,
    find_profile,
    profiles,
)
from carmel.cli.lab_storage import storage_name
from carmel.client.objects import dig
from carmel.errors import NotFound
from carmel.resources.admission import admit
from carmel.resources.image import IMAGE
from carmel.resources.network import NETWORK
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.port import PORT
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.resources.volume import VOLUME
from carmel.storage.build import RECIPES
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World


def test_the_manifests_lie_where_people_look_for_them() -> None:
    root = Path(__file__).parents[3]
    linked = {path.relative_to(root / "labs"): path.resolve() for path in (root / "labs").rglob("*.yaml")}
    package = root / "src/carmel/cli/labs"
    assert linked == {path.relative_to(package): path for path in package.rglob("*.yaml")}
    assert {"bare-metal", "dual-socket", "raspberry-pi-4", "smartnic", "xavier"} <= {
        profile.name for profile in profiles()
    }


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: f"{profile.name}-{profile.size}")
def test_every_machine_is_an_ordinary_vm(profile: Profile) -> None:
    named = profile.named("other")
    assert named.host.name == "other"
    assert named.host.guest_port(API) == 17443
    for machine, original in zip(named.machines, profile.machines, strict=True):
        admit(VIRTUAL_MACHINE, machine.manifest, None)
        assert machine.description
        assert machine.name.startswith("other")
        labels = dig(machine.manifest, "metadata", "labels")
        assert (labels[LAB_LABEL], labels[SIZE_LABEL]) == (profile.name, profile.size)
        # The one that it was made from is as it was.
        assert not original.name.startswith("other")
        if not machine.is_bare:
            assert machine.image in RECIPES
            assert machine.secret[0] == f"{machine.name}-keys"
            assert original.secret[0] == f"{original.name}-keys"
    assert not named.host.is_bare
    assert set(named.images) <= set(RECIPES)
    if named.host not in named.smart_nics:
        assert named.host.manifest["spec"]["cpu"]["nestedVirtualization"] is True


def test_a_smartnic_is_joined_to_its_host_by_a_cable_of_their_own() -> None:
    profile = find_profile("smartnic", MICRO)
    named = profile.named("other")
    assert [machine.name for machine in named.machines] == ["other", "other-nic"]
    assert named.smart_nics == named.machines[1:]
    [network] = named.networks
    admit(NETWORK, network, None)
    assert (network["metadata"]["name"], network["spec"]["provider"]) == ("other", "cable")
    assert profile.networks[0]["metadata"]["name"] == "lab-smartnic"
    plugged = [_on(machine, "other") for machine in named.machines]
    assert plugged[0].keys() == plugged[1].keys() == {"link", "f0", "f1", "f2", "f3"}
    assert (plugged[0]["link"], plugged[1]["link"]) == ("52:54:00:ca:00:01", "52:54:00:ca:00:02")
    for number in range(4):
        ends = [nics[f"f{number}"] for nics in plugged]
        assert ends == [f"52:54:00:ca:01:0{number}", f"52:54:00:ca:02:0{number}"]
    with pytest.raises(NotFound, match="no forward"):
        named.machines[1].guest_port(API)


def test_a_bare_host_has_all_from_its_smartnic() -> None:
    profile = find_profile("bare-metal", MICRO)
    named = profile.named("other")
    nic, host = named.machines
    assert (named.smart_nics, host.is_bare, host.name) == ((nic,), True, "other-host")
    spec = host.manifest["spec"]
    [volume] = named.volumes
    admit(VOLUME, volume, None)
    assert spec["disks"] == [{"name": "pf0nvme0", "bus": "nvme", "volumeRef": {"name": "other-boot"}}]
    assert (volume["metadata"]["name"], volume["spec"]["datastoreRef"]) == ("other-boot", {"name": storage_name(nic)})
    assert _on(host, "other") == {"f0": "52:54:00:ca:01:00"}
    assert len(spec["networks"]) == 1
    assert "cloudInit" not in spec
    # What is made on the NIC keeps its names: it is alone there.
    made = {one["kind"]: one for one in named.on_smart_nic}
    for kind in (IMAGE, NVME_NAMESPACE, NETWORK, PORT):
        admit(kind, made[kind.kind], None)
    assert made["NVMeNamespace"]["spec"]["function"] == volume["spec"]["export"]
    assert made["Port"]["spec"]["owner"] == "host"
    assert named.sent_images == ("micro-disk",)
    assert named.images == ("lab-host", "micro-disk")
    assert named.on_smart_nic == profile.on_smart_nic


def test_a_lone_smartnic_knows_nobody_but_its_administrators() -> None:
    keys = make_lone_nic_keys(SMART_NIC)
    assert keys.client == {}
    assert not [name for name in keys.files if name.startswith("hosts/")]
    assert "127.0.0.1" in json.loads(keys.files["server.json"])["names"]
    assert f"echo {SMART_NIC} {LONE_ADDRESS} >/run/carmel.role" in keys.script().splitlines()


def _on(machine: LabMachine, network: str) -> dict[str, str]:
    """MAC addresses of the NICs that are plugged into that network, by name."""
    nics = machine.manifest["spec"]["networks"]
    return {nic["name"]: nic["mac"] for nic in nics if dig(nic, "networkRef", "name") == network}


def test_a_lab_that_is_not_there_says_which_are(lone: Carmel) -> None:
    with pytest.raises(NotFound, match="no lab 'quad'") as caught:
        find_profile("quad", MICRO)
    assert "dual-socket" in (caught.value.hint or "")
    with pytest.raises(NotFound, match="no size huge"):
        find_profile("xavier", "huge")


def test_keys_are_whole_private_and_new_each_time() -> None:
    keys, others = make_keys(), make_keys()
    assert keys.token != others.token
    assert keys.authority != others.authority
    assert keys.token not in repr(keys)
    assert "PRIVATE KEY" not in repr(keys)
    assert set(keys.files) == {"ca.crt", "server.crt", "server.key", "server.json", "admin.token"}
    assert "127.0.0.1" in json.loads(keys.files["server.json"])["names"]


def test_the_seed_puts_the_keys_in_their_place() -> None:
    keys = make_keys()
    lines = keys.script().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines.index("umask 077") < next(index for index, line in enumerate(lines) if "printf" in line)
    words = shlex.split(keys.script(), comments=True)
    assert all(text in words for text in keys.files.values())
    assert "/var/lib/carmel/pki" in words


def test_a_smartnic_knows_its_host_by_what_its_own_authority_signed() -> None:
    keys = make_nic_keys(SMART_NIC, "server")
    assert NIC_ADDRESS in json.loads(keys.files["server.json"])["names"]
    assert keys.client["ca.crt"] == keys.authority
    assert keys.client["tls.crt"] == keys.files["hosts/server.crt"]
    # The host's key is the host's alone, and the NIC's authority the NIC's.
    assert keys.client["tls.key"] not in keys.files.values()
    assert "ca.key" in keys.files
    assert "ca.key" not in keys.client
    assert "PRIVATE KEY" not in repr(keys)
    assert f"echo {SMART_NIC} >/run/carmel.role" in keys.script().splitlines()
    assert "/run/carmel.role" not in make_keys().script()


def test_lists_profiles_and_machines(carmel: Carmel, world: World) -> None:
    lines = carmel("lab", "list").out.splitlines()
    assert lines[0].split() == ["PROFILE", "SIZE", "MACHINE", "POWER", "CONTEXT", "WHAT"]
    assert any(line.startswith("dual-socket") and "NVMe" in line for line in lines)


def test_another_vm_of_that_name_stays_as_it_is(carmel: Carmel) -> None:
    assert carmel("run", "micro", "--name", "lab-xavier").status == 0
    refused = carmel("lab", "up", "xavier")
    assert (refused.status, "not this lab's" in refused.err) == (4, True)
    gone = carmel("lab", "down", "xavier", "--force")
    assert (gone.status, "no machine lab-xavier" in gone.err) == (3, True)
    assert carmel("get", "vm", "lab-xavier").status == 0


def test_labs_are_made_near_by_only(lone: Carmel, home: Path) -> None:
    config = home / ".config/carmel/config"
    config.parent.mkdir(parents=True)
    config.write_text(
        "clusters: [{name: far, cluster: {server: 'https://192.0.2.1:1'}}]\nusers: []\n"
        "contexts: [{name: far, context: {cluster: far}}]\n"
    )
    refused = lone("--context", "far", "lab", "up", "xavier")
    assert (refused.status, "labs are made on this machine" in refused.err) == (5, True)


def test_a_machine_whose_keys_are_lost_is_told_so(carmel: Carmel, home: Path) -> None:
    labels = ["-l", f"{LAB_LABEL}=xavier", "-l", f"{SIZE_LABEL}={MICRO}"]
    assert carmel("run", "micro", "--name", "orphan", *labels).status == 0
    refused = carmel("lab", "up", "xavier", "--name", "orphan")
    assert (refused.status, "its keys are not" in refused.err) == (3, True)
    assert "orphan" in carmel("lab", "list").out
    # Its Secret has them too, should the context be lost.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "orphan-keys"}}
    (home / "secret.json").write_text(json.dumps(secret | {"stringData": {"ca.crt": "PEM", "token": "t"}}))
    assert carmel("create", "-f", str(home / "secret.json")).status == 0
    assert "no port of this machine leads" in carmel("lab", "up", "xavier", "--name", "orphan").err
    assert "--force deletes" in carmel("lab", "down", "xavier", "--name", "orphan").err
    assert carmel("lab", "down", "xavier", "--name", "orphan", "--force").status == 0
    assert carmel("get", "vm", "orphan").status == 3


def test_a_lab_of_several_machines_is_whole_or_gone(carmel: Carmel, home: Path) -> None:
    lab = find_profile("smartnic", MICRO).named("pair")
    mine = {"kind": "Network", "metadata": {"name": "pair-of-mine"}, "spec": {"provider": "cable"}}
    objects = [*lab.networks, *(machine.manifest for machine in lab.machines), lab.networks[0] | mine]
    for number, one in enumerate(objects):
        (home / f"{number}.json").write_text(json.dumps(one))
        assert carmel("create", "-f", str(home / f"{number}.json")).status == 0
    lines = [line.split() for line in carmel("lab", "list").out.splitlines() if line.startswith("smartnic")]
    assert [line[2] for line in lines] == ["pair", "pair-nic"]
    assert carmel("delete", "vm", "pair-nic", "--force").status == 0
    refused = carmel("lab", "up", "smartnic", "--name", "pair")
    assert (refused.status, "pair-nic is missing" in refused.err) == (3, True)
    assert carmel("lab", "down", "smartnic", "--name", "pair", "--force").status == 0
    assert (carmel("get", "vm", "pair").status, carmel("get", "network", "pair").status) == (3, 3)
    assert carmel("get", "network", "pair-of-mine").status == 0
