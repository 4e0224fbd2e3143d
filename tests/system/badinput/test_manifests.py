"""Manifests and requests that are wrong, by mistake or by intent."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
from typing import Any

import pytest

from carmel.client.api import Selection
from tests.daemon import Daemon
from tests.system.badinput.programs import Carmel, Kubectl

VMS = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines"


LAUGHS = "a: &a [x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 8)}]\n" for a, b in itertools.pairwise("abcdefghi"))
"""Eight times eight times eight: a small text that is hundreds of megabytes when it is written out."""


def manifest(name: str = "w", **spec: Any) -> str:
    vm = {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"powerState": "PoweredOff", **spec},
    }
    return json.dumps(vm)


def no_vms(daemon: Daemon) -> bool:
    return not daemon.client.list(daemon.client.kind("vm"), Selection(""))["items"]


def send(
    daemon: Daemon, method: str, target: str, body: bytes = b"", kind: str = "application/json"
) -> tuple[int, bytes]:
    """One request as it stands, over the Unix socket; no client library tidies it up."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(daemon.paths.api_socket))
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        # It may have heard enough before the end; its answer is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"memory": {"size": "lots"}}, "spec.memory.size"),
        ({"memory": {"size": "-1Gi"}}, "spec.memory.size"),
        ({"cpu": {"count": 0}}, "spec.cpu.count"),
        ({"cpu": "two"}, "spec.cpu"),
        ({"powerState": "On"}, "spec.powerState"),
        ({"disks": [{"name": "a", "size": "1Gi", "bus": "ide"}]}, "spec.disks[0].bus"),
        ({"disks": [{"name": "a", "size": "999Ti"}]}, "spec.disks[0].size"),
    ],
)
def test_a_wrong_field_is_named(carmel: Carmel, daemon: Daemon, spec: dict[str, Any], field: str) -> None:
    ended = carmel("apply", "-f", "-", "-o", "json", stdin=manifest(**spec), status=5)
    assert ended.error["field"] == field, ended.error
    assert not ended.error["retryable"]
    assert no_vms(daemon)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"disks": [{"name": "a", "size": "1Gi"}, {"name": "a", "size": "1Gi"}]}, "duplicate entries"),
        ({"cloudInit": {"userData": "#cloud-config\npassword: x"}}, 'unknown field "spec.cloudInit.userData"'),
        ({"colour": "blue"}, 'unknown field "spec.colour"'),
    ],
)
def test_what_has_no_place_is_named(carmel: Carmel, daemon: Daemon, spec: dict[str, Any], words: str) -> None:
    ended = carmel("apply", "-f", "-", "-o", "json", stdin=manifest(**spec), status=5)
    assert words in ended.error["message"]
    assert no_vms(daemon)


def test_kubectl_names_them_too(kubectl: Kubectl, daemon: Daemon) -> None:
    unknown = kubectl("apply", "-f", "-", stdin=manifest(colour="blue"), status=1)
    assert 'unknown field "spec.colour"' in unknown.stderr
    wrong = kubectl("apply", "--validate=false", "-f", "-", stdin=manifest(memory={"size": "lots"}), status=1)
    assert "spec.memory.size" in wrong.stderr
    long = kubectl("apply", "-f", "-", stdin=manifest("a" * 64), status=1)
    assert "metadata.name" in long.stderr
    nowhere = kubectl("-n", "nowhere", "apply", "-f", "-", stdin=manifest(), status=1)
    assert 'namespaces "nowhere" not found' in nowhere.stderr
    assert no_vms(daemon)


@pytest.mark.parametrize("name", ["a" * 64, "Upper", "under_score", "-dash", "ä", ""])
def test_a_bad_name(carmel: Carmel, daemon: Daemon, name: str) -> None:
    ended = carmel("apply", "-f", "-", "-o", "json", stdin=manifest(name), status=5)
    assert "name" in ended.error["message"], ended.error
    assert no_vms(daemon)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "a: b: c",
        "\t- x",
        "just words",
        "42",
        "[]",
        "kind: VirtualMachine",
        "apiVersion: [1]\nkind: {}\nmetadata: 7",
        "!!python/object/apply:os.system ['true']",
        LAUGHS,
        "[" * 5000,
        "{a: " * 5000,
        "\x00\x01\x02",
    ],
)
def test_what_is_no_manifest(carmel: Carmel, daemon: Daemon, text: str) -> None:
    ended = carmel("apply", "-f", "-", stdin=text, status=5)
    assert ended.stderr.startswith("error: "), ended.stderr
    assert no_vms(daemon)


@pytest.mark.parametrize("kind", ["carmel.dev/v1alpha1\nkind: Spaceship", "carmel.dev/v9\nkind: VirtualMachine"])
def test_a_kind_that_nobody_knows(carmel: Carmel, kind: str) -> None:
    ended = carmel("apply", "-f", "-", stdin=f"apiVersion: {kind}\nmetadata: {{name: x}}\n", status=3)
    assert "hint: `carmel api-resources` lists the kinds" in ended.stderr


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"{", "application/json", {400}),
        (b"\xff\xfe", "application/json", {400}),
        (b"[" * 100_000, "application/json", {400}),
        (b'{"a":' * 100_000, "application/json", {400}),
        (b"null", "application/json", {400}),
        (b'{"metadata":{"name":"w"},"spec":{"cpu":{"count":1e400}}}', "application/json", {400, 422}),
        (b'{"metadata":{"name":"w"},"spec":{"cpu":{"count":' + b"9" * 5000 + b"}}}", "application/json", {400, 422}),
        (b'{"metadata":{"name":"w\\ud800"}}', "application/json", {400, 422}),
        (b" " * (10 << 20), "application/json", {413}),
        (b"{}", "text/html", {415}),
        (b"a: " * 4000, "application/yaml", {400}),
        (b"k8s\x00\xff\xff\xff\xff", "application/vnd.kubernetes.protobuf", {400, 415}),
    ],
)
def test_what_is_no_body(daemon: Daemon, body: bytes, kind: str, expected: set[int]) -> None:
    status, answer = send(daemon, "POST", VMS, body, kind)
    told = json.loads(answer)
    assert status in expected, told
    assert (told["kind"], told["code"], told["status"]) == ("Status", status, "Failure")
    assert told["message"]
    assert no_vms(daemon)


@pytest.mark.parametrize(
    "tail",
    [
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%00",
        "/a%0d%0aX-Evil:%20yes",
        "/%ff%fe",
        "/w%2fstatus",
        "//w",
        "/" + "a" * 4000,
        "?limit=-1",
        "?limit=many",
        "?continue=%00%ff",
        "?labelSelector=((",
        "?fieldSelector=a=b=c,,",
    ],
)
def test_a_path_that_goes_nowhere(daemon: Daemon, tail: str) -> None:
    status, answer = send(daemon, "GET", VMS + tail)
    assert 400 <= status < 500, answer
    assert b"root:" not in answer
    assert json.loads(answer)["kind"] == "Status"


def test_a_field_of_another_manager(carmel: Carmel, kubectl: Kubectl, daemon: Daemon) -> None:
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=manifest("w", cpu={"count": 1}))
    ended = carmel("apply", "-f", "-", "-o", "json", stdin=manifest("w", cpu={"count": 2}), status=4)
    assert "one" in ended.error["message"], ended.error
    assert "--force" in ended.error["hint"]
    assert daemon.get("vm", "w")["spec"]["cpu"]["count"] == 1


def test_things_that_are_not_there(carmel: Carmel) -> None:
    assert carmel("get", "vm", "ghost", "-o", "json", status=3).error["code"] == "NotFound"
    assert "ghost" in carmel("delete", "vm", "ghost", "--force", status=3).stderr
    assert carmel("start", "ghost", status=3).stderr.startswith("error: ")
    ended = carmel("-n", "nowhere", "apply", "-f", "-", "-o", "json", stdin=manifest(), status=3)
    assert "nowhere" in ended.error["message"]
    assert carmel("apply", "-f", "/nonexistent.yaml", status=5).stderr.startswith("error: ")
