"""The client against the real API and store."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from carmel.client.api import Client, Selection, by_name
from carmel.client.console import open_console
from carmel.client.endpoint import Context, UnixEndpoint
from carmel.client.follow import follow
from carmel.client.objects import metadata
from carmel.errors import AlreadyExists, Conflict, Expired, Invalid, NotFound, Refused, TimedOut
from carmel.resources.network import NETWORK
from carmel.store.sqlite import SqliteStore
from tests.unit.client.world import World


async def _make_network(store: SqliteStore, name: str) -> None:
    await store.create(NETWORK, {"metadata": {"name": name}})


def secret(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def test_kinds_are_found_by_any_name(client: Client) -> None:
    kind = client.kind("vm")
    assert (kind.kind, kind.plural, kind.namespaced, kind.title) == (
        "VirtualMachine",
        "virtualmachines",
        True,
        "virtualmachine.carmel.dev",
    )
    assert kind.path("a", "b?c#d", "log") == ("/apis/carmel.dev/v1alpha1/namespaces/a/virtualmachines/b%3Fc%23d/log")
    assert client.kind("secrets").path("a", "b") == "/api/v1/namespaces/a/secrets/b"
    assert client.kind("clusterrolebindings").namespaced is False
    for word in ("unicorn", "vm.example.com", "", "virtualmachines/status"):
        with pytest.raises(NotFound):
            client.kind(word)
    with pytest.raises(NotFound):
        client.discovery.find_kind("nothing/v1", "Thing")


def test_objects_come_and_go(client: Client) -> None:
    kind = client.kind("secret")
    made = client.create(kind, "default", secret("one", a="1"))
    with pytest.raises(AlreadyExists):
        client.create(kind, "default", secret("one"))
    stale = {**made, "data": {"a": "Mg=="}}
    client.patch(kind, "default", "one", {"metadata": {"labels": {"x": "y"}}})
    with pytest.raises(Conflict):
        client.replace(kind, stale)
    changed = client.patch(kind, "default", "one", [{"op": "remove", "path": "/data/a"}], patch_type="json")
    assert "data" not in changed or changed["data"] == {}
    with pytest.raises(Conflict):
        client.delete(kind, "default", "one", uid="another")
    client.delete(kind, "default", "one", uid=metadata(made, "uid"))
    with pytest.raises(NotFound):
        client.get(kind, "default", "one")


def test_apply_tells_whether_it_created(client: Client) -> None:
    kind = client.kind("secret")
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"}, "data": {"a": "MQ=="}}
    assert client.apply(kind, "default", body, dry_run=True)[1] is True
    with pytest.raises(NotFound):
        client.get(kind, "default", "applied")
    first, created = client.apply(kind, "default", body)
    again, created_again = client.apply(kind, "default", body)
    assert (created, created_again) == (True, False)
    assert metadata(first, "resourceVersion") == metadata(again, "resourceVersion")


def test_long_lists_are_fetched_in_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carmel.client.api._PAGE", 3)
    kind = client.kind("secret")
    for number in range(8):
        client.create(kind, "lab", secret(f"s{number}"))
    listed = client.list(kind, Selection("lab"))
    assert [metadata(one, "name") for one in listed["items"]] == [f"s{number}" for number in range(8)]
    assert {one["kind"] for one in listed["items"]} == {"Secret"}
    assert "continue" not in listed["metadata"]
    table = client.table(kind, Selection("lab"))
    assert [row.name for row in table.rows] == [f"s{number}" for number in range(8)]
    assert table.columns[0].name == "Name"


def test_errors_are_what_the_server_meant(client: Client) -> None:
    vm = {"apiVersion": "carmel.dev/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": "w"}, "spec": {}}
    with pytest.raises(Invalid) as caught:
        client.create(client.kind("vm"), "default", {**vm, "spec": {"cpu": {"count": 0}, "memory": {"size": "x"}}})
    assert caught.value.field == "spec.cpu.count"
    assert {cause.field for cause in caught.value.causes} == {"spec.cpu.count", "spec.memory.size"}
    with pytest.raises(NotFound):
        client.create(client.kind("vm"), "nowhere", vm)


def test_a_watch_misses_nothing_after_its_list(client: Client, world: World) -> None:
    kind = client.kind("network")
    listed = client.list(kind, Selection())
    for number in range(3):
        world.do(partial(_make_network, name=f"n{number}"))
    events = client.watch(kind, Selection(), metadata(listed, "resourceVersion"), deadline=time.monotonic() + 20)
    assert [(event.type, metadata(event.object, "name")) for _, event in zip(range(3), events, strict=False)] == [
        ("ADDED", f"n{number}") for number in range(3)
    ]


def test_a_watch_ends_at_its_deadline(client: Client) -> None:
    kind = client.kind("network")
    version = metadata(client.list(kind, Selection()), "resourceVersion")
    with pytest.raises(TimedOut):
        list(client.watch(kind, Selection(), version, deadline=time.monotonic() + 0.2))


def test_a_version_that_is_too_old_is_expired(client: Client) -> None:
    kind = client.kind("network")
    with pytest.raises(Expired):
        next(client.watch(kind, Selection(), "1", deadline=time.monotonic() + 10))


def test_following_tells_of_the_end(client: Client) -> None:
    kind = client.kind("secret")
    client.create(kind, "default", secret("followed"))
    states = follow(client, kind, "default", "followed", deadline=time.monotonic() + 20)
    assert next(states) is not None
    with Client(client.context) as another:
        another.delete(kind, "default", "followed")
    assert next(states) is None


def test_following_goes_on_after_a_restart_of_the_daemon(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("restart")
    seen: list[str] = []
    waiting = threading.Event()

    def watch() -> None:
        with Client(Context("local", UnixEndpoint(folder / "api.sock"))) as client:
            kind = client.kind("namespace")
            for obj in follow(client, kind, None, "default", deadline=time.monotonic() + 60):
                seen.append(str((obj or {}).get("metadata", {}).get("labels")))
                waiting.set()
                if "after" in seen[-1]:
                    return

    thread = threading.Thread(target=watch)
    with World(folder):
        thread.start()
        assert waiting.wait(20)
    with World(folder), Client(Context("local", UnixEndpoint(folder / "api.sock"))) as client:
        client.patch(client.kind("namespace"), None, "default", {"metadata": {"labels": {"x": "after"}}})
        thread.join(40)
    assert "after" in seen[-1]


def test_a_console_carries_bytes_both_ways(client: Client, world: World) -> None:
    kind = client.kind("vm")
    vm = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "echo"}, "spec": {}}
    client.create(kind, "default", vm)
    states = follow(client, kind, "default", "echo", deadline=time.monotonic() + 20)
    assert any((obj or {}).get("status", {}).get("powerState") == "PoweredOn" for obj in states)
    with open_console(client.context.endpoint, kind.path("default", "echo", "console")) as console:
        assert console.receive() == b"login: "
        console.send(b"\x00\xffhi")
        assert console.receive() == b"<\x00\xffhi>"
        console.send(b"exit")
        assert console.receive() == b"<exit>"
        assert console.receive() == b""
    client.patch(kind, "default", "echo", {"spec": {"powerState": "PoweredOff"}})
    states = follow(client, kind, "default", "echo", deadline=time.monotonic() + 20)
    assert any((obj or {}).get("status", {}).get("powerState") == "PoweredOff" for obj in states)
    with (
        pytest.raises(Refused) as caught,
        open_console(client.context.endpoint, kind.path("default", "echo", "console")),
    ):
        pass
    assert caught.value.hint == "carmel start echo"


def test_one_connection_serves_many_requests(client: Client) -> None:
    client.get_json("/version")
    first = client.transport._kept
    client.get_json("/version")
    assert client.transport._kept is first
    assert by_name("a", "b").query() == {"fieldSelector": "metadata.name=b"}
