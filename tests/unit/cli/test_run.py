"""``carmel run``: the whole way, and nothing half made when it ends early."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from carmel.resources.core import SECRET
from carmel.resources.image import IMAGE
from carmel.resources.network import NETWORK
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World


def names(world: World, kind: Any) -> set[str]:
    return {one["metadata"]["name"] for one in world.objects(kind)}


def test_micro_is_built_and_started(carmel: Carmel) -> None:
    outcome = carmel("run", "micro", "--name", "w", "--nonce", "n1", "--wait=ready", "-o", "json")
    assert (outcome.status, outcome.err) == (0, "")
    vm = outcome.json()
    assert vm["status"]["powerState"] == "PoweredOn"
    assert vm["status"]["launchID"]
    assert vm["spec"]["firmware"]["commandLine"] == "carmel.nonce=n1"


def test_a_disk_image_gets_the_users_key(carmel: Carmel, home: Path, world: World) -> None:
    data = home / "user-data"
    data.write_text("#cloud-config\npackages: [nginx]\n")
    outcome = carmel("run", "debian", "--name", "web", "-p", "8080:80", "--user-data", str(data), "-l", "app=web")
    assert outcome.status == 0
    assert "downloading image debian  10%" in outcome.err
    assert "web is PoweredOn at 10.0.2.15" in outcome.out
    assert "127.0.0.1:8080 -> 80/tcp" in outcome.out
    key = home / ".config/carmel/id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    vm = carmel("get", "vm", "web", "-o", "json").json()
    assert vm["spec"]["cloudInit"]["sshAuthorizedKeys"] == [key.with_suffix(".pub").read_text().strip()]
    secret = carmel("get", "secret", "web-user-data", "-o", "json").json()
    assert base64.b64decode(secret["data"]["userdata"]).decode() == data.read_text()
    assert secret["metadata"]["ownerReferences"][0]["uid"] == vm["metadata"]["uid"]


def test_progress_is_told_once_for_each_step_where_there_is_no_terminal(carmel: Carmel) -> None:
    lines = carmel("run", "ubuntu", "--name", "steps").err.splitlines()
    assert len(lines) == len(set(lines))
    assert not any("\r" in line or "\x1b" in line for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ("--memory", "lots"),
        ("--cpus", "0"),
        ("--publish", "99999:1"),
        ("--disk", "size=1Gi,size=2Gi"),
        ("--network", "none", "--publish", "80"),
        ("--user-data", "/nonexistent"),
        ("--wait", "someday"),
        ("--nonce", "a b"),
        ("--timeout", "never"),
    ],
)
def test_wrong_options_are_usage_errors_and_make_nothing(carmel: Carmel, world: World, words: tuple[str, ...]) -> None:
    before = names(world, IMAGE), names(world, VIRTUAL_MACHINE)
    outcome = carmel("run", "fresh-image", "--name", "wrong", *words)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert (names(world, IMAGE), names(world, VIRTUAL_MACHINE)) == before


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--network", "nowhere"), 3),
        (("--ssh-key", "/nonexistent"), 5),
        (("--memory", "1Mi"), 5),
        (("--publish", "300.1.1.1:80:80"), 5),
    ],
)
def test_what_the_server_would_refuse_is_found_before_an_image_is_fetched(
    carmel: Carmel, world: World, words: tuple[str, ...], status: int
) -> None:
    outcome = carmel("run", "fresh-image", "--name", "refused", *words)
    assert outcome.status == status
    assert "fresh-image" not in names(world, IMAGE)
    assert "refused" not in names(world, VIRTUAL_MACHINE)


def test_a_taken_name_is_a_conflict(carmel: Carmel) -> None:
    assert carmel("run", "micro", "--name", "taken").status == 0
    outcome = carmel("run", "micro", "--name", "taken")
    assert (outcome.status, "carmel start taken" in outcome.err) == (4, True)


def test_an_image_that_cannot_be_got_leaves_nothing(carmel: Carmel, world: World) -> None:
    outcome = carmel("run", "broken", "--name", "never", "-o", "json")
    assert (outcome.status, outcome.out) == (5, "")
    assert '"code": "DigestMismatch"' in outcome.err
    assert "broken" not in names(world, IMAGE)
    assert "never" not in names(world, VIRTUAL_MACHINE)


def test_a_vm_that_is_refused_takes_its_secret_with_it(carmel: Carmel, world: World, home: Path) -> None:
    """The image is there already, so that only the creation itself can find out."""
    carmel("image", "build", "micro", "--name", "here")
    data = home / "user-data"
    data.write_text("#cloud-config\n")
    outcome = carmel("run", "here", "--name", "small", "--memory", "1Mi", "--user-data", str(data))
    assert outcome.status == 5
    assert "small-user-data" not in names(world, SECRET)


def test_no_wait_returns_at_once(carmel: Carmel) -> None:
    outcome = carmel("run", "micro", "--name", "quick", "--no-wait", "-l", "stuck=yes")
    assert (outcome.status, outcome.out) == (0, "quick is defined.\n")
    late = carmel("wait", "vm", "quick", "--timeout", "0.3s")
    assert (late.status, "carmel describe" in late.err) == (6, True)


def test_a_vm_without_a_name_is_called_after_its_image(carmel: Carmel, world: World) -> None:
    before = set(names(world, VIRTUAL_MACHINE))
    for _ in range(3):
        assert carmel("run", "debian-13").status == 0
    assert set(names(world, VIRTUAL_MACHINE)) - before == {"debian-13", "debian-13-2", "debian-13-3"}


def test_on_a_network_with_addresses_of_their_own_vms_need_no_forwards(carmel: Carmel, world: World) -> None:
    spec = {"provider": "nat", "nat": {"subnet": "10.8.0.0/24"}}
    world.do(lambda store: store.create(NETWORK, {"metadata": {"name": "inner"}, "spec": spec}))
    outcome = carmel("run", "debian", "--name", "natted", "--network", "inner")
    assert outcome.status == 0
    vm = carmel("get", "vm", "natted", "-o", "json").json()
    assert vm["spec"]["networks"] == [{"name": "net0", "networkRef": {"name": "inner"}}]
    refused = carmel("run", "debian", "--name", "published", "--network", "inner", "-p", "8080:80")
    assert refused.status == 2
    assert "--publish needs a network of provider user" in refused.err
    assert "published" not in names(world, VIRTUAL_MACHINE)
