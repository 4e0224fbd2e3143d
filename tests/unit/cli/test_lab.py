"""``carmel lab``: its profiles, its keys, and what it refuses. Machines are really made in ``tests/system/lab``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from carmel.cli.lab_keys import make_keys
from carmel.cli.lab_profiles import LAB_LABEL, MICRO, SIZE_LABEL, Profile, find_profile, profiles
from carmel.client.objects import dig
from carmel.errors import NotFound
from carmel.resources.admission import admit
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.storage.build import RECIPES
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World


def test_the_manifests_lie_where_people_look_for_them() -> None:
    root = Path(__file__).parents[3]
    linked = {path.relative_to(root / "labs"): path.resolve() for path in (root / "labs").rglob("*.yaml")}
    package = root / "src/carmel/cli/labs"
    assert linked == {path.relative_to(package): path for path in package.rglob("*.yaml")}
    assert {"dual-socket", "raspberry-pi-4", "xavier"} <= {profile.name for profile in profiles()}


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: f"{profile.name}-{profile.size}")
def test_every_profile_is_an_ordinary_vm(profile: Profile) -> None:
    named = profile.named("other")
    admitted = admit(VIRTUAL_MACHINE, named.manifest, None)
    assert admitted["spec"]["cpu"]["nestedVirtualization"] is True
    assert profile.image in RECIPES
    assert profile.description
    assert profile.api_port
    assert named.secret[0] == "other-keys"
    assert dig(named.manifest, "metadata", "labels") == {LAB_LABEL: profile.name, SIZE_LABEL: profile.size}
    # The one that it was made from is as it was.
    assert profile.vm_name != "other"
    assert profile.secret[0] == f"{profile.vm_name}-keys"


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
