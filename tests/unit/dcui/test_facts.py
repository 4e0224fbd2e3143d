"""What the page is made of: a daemon that answers, one that does not, files that are not there."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from carmel.client.api import Client
from carmel.client.endpoint import Context, UnixEndpoint
from carmel.dcui import facts
from carmel.dcui.facts import Facts, gather
from carmel.paths import Paths
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.run import Command, Result
from tests.unit.client.world import World

_LINKS = [
    {"ifname": "lo", "link_type": "loopback", "addr_info": [{"scope": "host", "local": "127.0.0.1"}]},
    {
        "ifname": "eno1",
        "link_type": "ether",
        "addr_info": [
            {"scope": "global", "local": "192.0.2.10"},
            {"scope": "global", "local": "2001:db8::1", "deprecated": True},
            {"scope": "link", "local": "fe80::1"},
        ],
    },
]
# Any certificate: the fingerprint is that of its bytes.
_DER = b"0\x03\x02\x01\x05"


class Links:
    """A runner that knows ``ip -json address`` alone."""

    def __init__(self, links: object) -> None:
        self._links = links

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        assert command.program == "ip"
        return Result(0, json.dumps(self._links).encode(), b"")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "state", tmp_path / "run", tmp_path / "cache")
    found.pki.mkdir(parents=True)
    found.runtime.mkdir()
    return found


async def gather_from(paths: Paths, links: Links) -> Facts:
    with Client(Context("local", UnixEndpoint(paths.api_socket))) as client:
        return await gather(paths, links, client)


async def test_without_a_daemon_the_page_says_so_and_tells_the_rest(paths: Paths) -> None:
    (paths.pki / "ca.crt").write_text(ssl.DER_cert_to_PEM_cert(_DER))
    (paths.pki / "admin.token").write_text("secret-of-the-administrator")
    found = await gather_from(paths, Links(_LINKS))
    assert found.addresses == (("eno1", "192.0.2.10"),)
    assert found.fingerprint == hashlib.sha256(_DER).hexdigest()
    assert found.url == ""
    assert [("daemon is not running" in one.message, "journalctl" in one.hint) for one in found.problems] == [
        (True, True)
    ]
    assert "secret-of-the-administrator" not in repr(found)


async def test_a_machine_without_an_address_names_its_cards(paths: Paths) -> None:
    found = await gather_from(paths, Links([{"ifname": "end0", "link_type": "ether", "addr_info": []}]))
    problem = next(one for one in found.problems if "no address" in one.message)
    assert "end0" in problem.hint


@pytest.mark.parametrize(
    ("report", "problem", "told"),
    [
        ({"state": "Refused", "message": "carmel.yaml is wrong: x", "hint": "h"}, "carmel.yaml is wrong: x", ""),
        ({"state": "Absent", "message": "none", "hint": "copy it"}, None, "none: copy it"),
        ({"state": "Applied", "message": "applied", "hint": None}, None, "applied"),
        ("rubbish", None, ""),
    ],
)
async def test_what_became_of_the_configuration(paths: Paths, report: object, problem: str | None, told: str) -> None:
    paths.firstboot_report.write_text(json.dumps(report))
    found = await gather_from(paths, Links(_LINKS))
    assert found.configuration == told
    assert (problem in [one.message for one in found.problems]) is (problem is not None)


def test_vms_that_should_run_and_do_not_are_told_with_the_reason() -> None:
    def vm(name: str, wanted: str, seen: str | None, message: str = "") -> dict[str, object]:
        conditions = [{"type": "Ready", "status": "False", "message": message}] if message else []
        meta = {"namespace": "default", "name": name}
        return {
            "metadata": meta,
            "spec": {"powerState": wanted},
            "status": {"powerState": seen, "conditions": conditions},
        }

    machines = [
        vm("runs", "PoweredOn", "PoweredOn"),
        vm("off", "PoweredOff", "PoweredOff"),
        vm("refused", "PoweredOn", "PoweredOff", "no memory is left"),
        vm("new", "PoweredOn", None),
    ]
    assert [one.message for one in facts._machine_problems(machines)] == [
        "VM default/refused does not run: no memory is left",
        "VM default/new does not run: not started yet",
    ]


async def test_the_page_is_made_of_what_the_api_says(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        paths = Paths(tmp_path / "state", tmp_path, tmp_path / "cache")
        spec = {"powerState": "PoweredOff", "memory": {"size": "64Mi"}, "firmware": {"type": "UEFI"}}
        world.do(
            lambda store: store.create(
                VIRTUAL_MACHINE, {"metadata": {"name": "off", "namespace": "default"}, "spec": spec}
            )
        )
        with Client(Context("local", UnixEndpoint(paths.api_socket))) as client:
            first = await gather(paths, Links(_LINKS), client)
            again = await gather(paths, Links(_LINKS), client)
    assert first.host["metadata"]["name"] == "pi"
    assert sum(count for _, count in first.machines) == 1
    assert sum(count for _, count in again.machines) == 1
    assert "daemon is not running" not in str(first.problems)
