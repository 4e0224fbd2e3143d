"""Whatever is asked, the answer is never a 5xx, never a traceback, and always a whole Status when it is an error."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.apiserver.app import App
from carmel.resources.registry import KINDS
from tests.unit.apiserver.asgi import call
from tests.unit.apiserver.harness import running_app

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
SEGMENTS = st.one_of(
    st.sampled_from(
        [
            *(kind.plural for kind in KINDS),
            *(kind.group for kind in KINDS),
            *("api", "apis", "v1", "v1alpha1", "namespaces", "default", "carmel-system", "web", "status", "finalize"),
            *("log", "upload", "console", "openapi", "v2", "v3", "version", "metrics", "healthz", "%2e%2e", "%00", ""),
            *("authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"),
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=12),
)
PREFIXES = st.sampled_from(
    [
        "",
        "/api/v1",
        "/api/v1/namespaces/default",
        "/apis/carmel.dev/v1alpha1",
        "/apis/carmel.dev/v1alpha1/namespaces/default",
        "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines",
        "/apis/rbac.authorization.k8s.io/v1",
    ]
)
PARAMETERS = st.sampled_from(
    [
        "watch",
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "includeObject",
        "propagationPolicy",
        "gracePeriodSeconds",
        "orphanDependents",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "tailLines",
        "tailBytes",
        "follow",
        "verbose",
        "hash",
        "pretty",
    ]
)
VALUES = st.one_of(
    st.sampled_from(["true", "false", "1", "0", "All", "Strict", "NotOlderThan", "Exact", "Orphan", "a=b", "-1", ""]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#"), max_size=20),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20))
NAMES = st.one_of(
    st.sampled_from(
        [
            "apiVersion",
            "kind",
            "metadata",
            "spec",
            "status",
            "name",
            "namespace",
            "generateName",
            "labels",
            "annotations",
            "finalizers",
            "uid",
            "resourceVersion",
            "ownerReferences",
            "managedFields",
            "cpu",
            "count",
            "memory",
            "size",
            "disks",
            "networks",
            "data",
            "stringData",
            "type",
            "roleRef",
            "subjects",
            "op",
            "path",
            "value",
            "from",
            "items",
            "resourceAttributes",
            "preconditions",
            "dryRun",
            "creationTimestamp",
        ]
    ),
    st.text(max_size=8),
)
JSON = st.recursive(
    LEAVES,
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(NAMES, children, max_size=5)),
    max_leaves=20,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.one_of(
            JSON,
            st.fixed_dictionaries({"name": st.sampled_from(["web", "a", "Web", ""])}, optional={"labels": JSON}),
            st.dictionaries(NAMES, JSON, max_size=6),
        ),
        "spec": JSON,
        "status": JSON,
        "data": JSON,
        "kind": st.sampled_from(["VirtualMachine", "Secret", "", "DeleteOptions"]),
        "subjects": JSON,
        "roleRef": JSON,
    },
)
TYPES = st.sampled_from(
    [
        "application/json",
        "application/yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "text/html",
        "",
        ";;=",
    ]
)
ACCEPTS = st.sampled_from(
    [
        "",
        "application/json",
        "application/yaml",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "text/html",
        ";,;=,",
    ]
)


def encoded(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):
        return repr(value).encode("utf-8", "replace")


BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=60),
    OBJECTS.map(encoded),
    JSON.map(encoded),
    st.binary(max_size=40).map(lambda rest: b"k8s\x00" + rest),
)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[asyncio.AbstractEventLoop, App]]:
    """One application for all examples: what one leaves behind, the next must bear."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        runner = stack.enter_context(asyncio.Runner())
        context = running_app(Path(folder))
        app, store, _ = runner.run(context.__aenter__())
        machine = {"metadata": {"name": "web", "namespace": "default"}}
        runner.run(store.create(KINDS[0], machine))
        yield runner.get_loop(), app
        runner.run(context.__aexit__(None, None, None))


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    method=METHODS,
    prefix=PREFIXES,
    segments=st.lists(SEGMENTS, max_size=4),
    parameters=st.lists(st.tuples(PARAMETERS, VALUES), max_size=3),
    body=BODIES,
    content_type=TYPES,
    accept=ACCEPTS,
)
def test_any_request_has_a_decent_answer(
    served: tuple[asyncio.AbstractEventLoop, App],
    caplog: pytest.LogCaptureFixture,
    method: str,
    prefix: str,
    segments: list[str],
    parameters: list[tuple[str, str]],
    body: bytes,
    content_type: str,
    accept: str,
) -> None:
    loop, app = served
    query = "&".join(f"{name}={value}" for name, value in [("timeoutSeconds", "1"), *parameters])
    headers = {"content-type": content_type, "accept": accept, "user-agent": "fuzz/1"}

    async def ask() -> None:
        app.shared.stopping = asyncio.Event()
        app.shared.stopping.set()  # watches end at once
        answer = await call(app, method, f"{prefix}/{'/'.join(segments)}?{query}", body, headers)
        ready = segments[-1:] != ["readyz"]
        assert answer.status < 500 or not ready, (answer.status, answer.body)
        assert b"Traceback" not in answer.body
        if answer.status >= 400 and ready:
            status = answer.json()
            assert (status["kind"], status["code"]) == ("Status", answer.status)
            assert status["message"]
            assert status["reason"]

    with caplog.at_level(logging.ERROR):
        loop.run_until_complete(ask())
    assert not caplog.records
