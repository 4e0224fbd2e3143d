"""Paths: what they mean, and that no trick makes one mean another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.apiserver.requestinfo import resolve
from carmel.errors import CarmelError, Invalid, MethodNotAllowed, NotFound

VMS = b"/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", b"/api/v1/namespaces", ("list", "namespaces", None, "", "")),
        ("GET", b"/api/v1/namespaces/default", ("get", "namespaces", None, "default", "")),
        ("PUT", b"/api/v1/namespaces/default/finalize", ("update", "namespaces", None, "default", "finalize")),
        ("GET", b"/api/v1/namespaces/default/secrets", ("list", "secrets", "default", "", "")),
        ("GET", b"/apis/carmel.dev/v1alpha1/virtualmachines", ("list", "virtualmachines", None, "", "")),
        ("POST", VMS, ("create", "virtualmachines", "default", "", "")),
        ("DELETE", VMS, ("deletecollection", "virtualmachines", "default", "", "")),
        ("PATCH", VMS + b"/web/status", ("patch", "virtualmachines", "default", "web", "status")),
        ("GET", VMS + b"/w%65b", ("get", "virtualmachines", "default", "web", "")),
        ("GET", VMS + b"/", ("list", "virtualmachines", "default", "", "")),
        ("HEAD", VMS + b"/web/log", ("get", "virtualmachines", "default", "web", "log")),
        (
            "GET",
            b"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/a:b",
            ("get", "clusterrolebindings", None, "a:b", ""),
        ),
    ],
)
def test_resources(method: str, path: bytes, expected: tuple[object, ...]) -> None:
    info = resolve(method, path)
    assert info.kind is not None
    assert (info.verb, info.kind.plural, info.namespace, info.name, info.subresource) == expected


def test_watch_is_a_verb_of_collections_only() -> None:
    assert resolve("GET", VMS, watch=True).verb == "watch"
    assert resolve("GET", VMS + b"/web", watch=True).verb == "get"


@pytest.mark.parametrize(
    "path",
    [
        VMS + b"/..%2f..%2fsecrets",
        VMS + b"/%2e%2e/x",
        VMS + b"/..",
        VMS + b"/web/../../secrets",
        VMS + b"//web",
        VMS + b"/web%00",
        VMS + b"/w%0aeb",
        VMS + b"/Web",
        VMS + b"/" + b"a" * 254,
        VMS + b"/%ff",
        VMS + b"/web/nonsense",
        VMS + b"/web/status/more",
        b"/apis/carmel.dev/v1alpha1/namespaces/default%2fx/virtualmachines",
        b"/apis/carmel.dev/v1alpha1/namespaces/../virtualmachines",
        b"/apis/carmel.dev/v1alpha1/namespaces/default/hosts",
        b"/apis/carmel.dev/v1alpha1/virtualmachines/web",
        b"/apis/carmel.dev/v2/virtualmachines",
        b"/apis/carmel.dev/v1alpha1/nonsense",
        b"x/api/v1/namespaces",
    ],
)
def test_what_is_not_there(path: bytes) -> None:
    with pytest.raises(NotFound):
        resolve("GET", path)


def test_what_is_no_resource_is_left_to_others() -> None:
    assert resolve("GET", b"/api/v2/namespaces/x/y").kind is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", VMS + b"/web"),
        ("PUT", VMS),
        ("POST", b"/apis/carmel.dev/v1alpha1/virtualmachines"),
        ("DELETE", b"/apis/carmel.dev/v1alpha1/virtualmachines"),
        ("DELETE", VMS + b"/web/status"),
        ("PUT", VMS + b"/web/console"),
        ("PROPFIND", VMS),
    ],
)
def test_wrong_methods(method: str, path: bytes) -> None:
    with pytest.raises(MethodNotAllowed):
        resolve(method, path)


@given(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE"]), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(method: str, rest: bytes) -> None:
    for root in (b"/", b"/apis/carmel.dev/v1alpha1/namespaces/", VMS + b"/"):
        try:
            info = resolve(method, root + rest)
        except CarmelError:
            continue
        assert "/" not in info.name + (info.namespace or "")


def test_an_apply_under_a_bad_name_is_told_what_is_wrong_with_it() -> None:
    with pytest.raises(Invalid) as caught:
        resolve("PATCH", VMS + b"/Bad_Name")
    assert caught.value.field == "metadata.name"
    with pytest.raises(NotFound):
        resolve("GET", VMS + b"/Bad_Name")
