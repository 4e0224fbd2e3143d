"""Who may do what, over the API: roles, tokens, local users, and no way up."""

from __future__ import annotations

import os
from typing import Any

import pytest

from carmel.apiserver.identity import hash_token, local_user
from carmel.resources.rbac import CLUSTER_ROLE_BINDING, ROLE_BINDING
from tests.unit.apiserver.asgi import Answer, call
from tests.unit.apiserver.conftest import Served

GROUP = "rbac.authorization.k8s.io"
DEFAULT = "/namespaces/default"
VMS = "/apis/carmel.dev/v1alpha1/namespaces/{}/virtualmachines"
SECRETS = "/api/v1/namespaces/{}/secrets"
BINDINGS = f"/apis/{GROUP}/v1/namespaces/{{}}/rolebindings"
CLUSTER_BINDINGS = f"/apis/{GROUP}/v1/clusterrolebindings"
NOBODY: dict[str, Any] = {}


async def bind(served: Served, role: str, name: str, namespace: str | None = None, kind: str = "User") -> None:
    metadata: dict[str, Any] = {"name": f"{role}-{name}".lower()}
    if namespace:
        metadata["namespace"] = namespace
    binding = {
        "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": kind, "name": name}],
    }
    await served.store.create(ROLE_BINDING if namespace else CLUSTER_ROLE_BINDING, binding)


def token_secret(user: str, token: str, groups: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": f"token-{user}"},
        "type": "carmel.dev/token",
        "stringData": {"sha256": hash_token(token), "user": user, "groups": groups},
    }


async def login(served: Served, user: str, groups: str = "") -> None:
    answer = await call(
        served.app, "POST", SECRETS.format("carmel-system"), token_secret(user, f"{user}-token", groups)
    )
    assert answer.status == 201


async def as_user(served: Served, user: str, method: str, target: str, body: Any = None) -> Answer:
    headers = {"authorization": f"Bearer {user}-token"}
    return await call(served.app, method, target, body, headers, state=NOBODY)


async def statuses(served: Served, user: str, *requests: tuple[str, str, Any]) -> list[int]:
    return [(await as_user(served, user, *request)).status for request in requests]


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **fields}


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "Bearer " + "x" * 10_000, "Bearer \xff"]
)
async def test_nobody_comes_in_without_a_token(served: Served, header: str | None) -> None:
    for path in ("/", "/healthz", "/version", "/metrics", "/nonsense", VMS.format("default")):
        answer = await call(
            served.app, "GET", path, headers={"authorization": header} if header is not None else {}, state=NOBODY
        )
        assert (answer.status, answer.json()["reason"]) == (401, "Unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_token_is_not_saved_by_the_socket(served: Served) -> None:
    answer = await call(served.app, "GET", "/version", headers={"authorization": "Bearer wrong"})
    assert answer.status == 401


async def test_the_administrators_token(served: Served) -> None:
    answer = await call(
        served.app, "GET", SECRETS.format("default"), headers={"authorization": "Bearer secret"}, state=NOBODY
    )
    assert answer.status == 200


async def test_a_viewer_reads_all_but_secrets(served: Served) -> None:
    await login(served, "eve")
    await bind(served, "viewer", "eve")
    assert (
        await statuses(
            served,
            "eve",
            ("GET", VMS.format("default"), None),
            ("GET", "/apis/carmel.dev/v1alpha1/virtualmachines?watch=true&timeoutSeconds=1", None),
            ("GET", "/apis/carmel.dev/v1alpha1/hosts", None),
            ("GET", "/metrics", None),
            ("GET", CLUSTER_BINDINGS, None),
        )
        == [200] * 5
    )
    assert (
        await statuses(
            served,
            "eve",
            ("GET", SECRETS.format("default"), None),
            ("GET", SECRETS.format("default") + "/x", None),
            ("POST", VMS.format("default"), named("x")),
            ("DELETE", VMS.format("default") + "/x", None),
            ("PATCH", VMS.format("default") + "/x", {}),
            ("GET", VMS.format("default") + "/x/console", None),
            ("POST", CLUSTER_BINDINGS, named("x")),
        )
        == [403] * 7
    )


async def test_an_operator_runs_vms_where_he_is_bound(served: Served) -> None:
    await login(served, "bob")
    await bind(served, "operator", "bob", "default")
    assert await statuses(
        served,
        "bob",
        ("POST", VMS.format("default"), named("x")),
        ("GET", VMS.format("default") + "/x", None),
        ("POST", SECRETS.format("default"), named("keys")),
        ("DELETE", VMS.format("default") + "/x", None),
        ("GET", "/api/v1/namespaces/default", None),
    ) == [201, 200, 201, 200, 200]
    assert (
        await statuses(
            served,
            "bob",
            ("GET", VMS.format("team"), None),
            ("GET", "/apis/carmel.dev/v1alpha1/virtualmachines", None),
            ("GET", SECRETS.format("default") + "/keys", None),
            ("PATCH", SECRETS.format("default") + "/keys", {}),
            ("DELETE", SECRETS.format("default"), None),
            ("PUT", VMS.format("default") + "/x/status", named("x")),
            ("POST", BINDINGS.format("default"), named("x")),
            ("DELETE", "/api/v1/namespaces/default", None),
            ("GET", "/api/v1/namespaces", None),
            ("GET", "/metrics", None),
        )
        == [403] * 10
    )


async def test_a_deleted_secret_is_not_shown(served: Served) -> None:
    await login(served, "bob")
    await bind(served, "operator", "bob", "default")
    secret = {**named("keys", stringData={"a": "hidden"})}
    secret["metadata"]["finalizers"] = ["carmel.dev/test"]
    await call(served.app, "POST", SECRETS.format("default"), secret)
    answer = await as_user(served, "bob", "DELETE", SECRETS.format("default") + "/keys")
    assert answer.status == 200
    assert b"aGlkZGVu" not in answer.body


async def test_nobody_gives_what_he_has_not(served: Served) -> None:
    await login(served, "ann")
    await bind(served, "admin", "ann", "default")
    await bind(served, "admin", "ann", "carmel-system")
    await bind(served, "operator", "ann")
    role = {"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "admin"}}
    subjects = {"subjects": [{"kind": "User", "name": "ann"}]}
    assert await statuses(served, "ann", ("POST", BINDINGS.format("default"), named("more", **role, **subjects))) == [
        201
    ]
    own = token_secret("ann2", "t", "system:masters")
    applied = SECRETS.format("carmel-system") + "/token-ann2?fieldManager=x"
    assert (
        await statuses(
            served,
            "ann",
            ("POST", CLUSTER_BINDINGS, named("more", **role, **subjects)),
            ("POST", BINDINGS.format("team"), named("more", **role, **subjects)),
            ("POST", BINDINGS.format("carmel-system"), named("more", **role, **subjects)),
            ("POST", SECRETS.format("carmel-system"), own),
            ("PATCH", applied, own),
            ("GET", SECRETS.format("carmel-system"), None),
            ("DELETE", SECRETS.format("carmel-system") + "/token-ann", None),
        )
        == [403] * 7
    )


async def test_groups_and_revocation(served: Served) -> None:
    await login(served, "cat", "night, day")
    await bind(served, "viewer", "day", kind="Group")
    request = ("GET", VMS.format("default"), None)
    assert await statuses(served, "cat", request) == [200]
    await served.store.delete(CLUSTER_ROLE_BINDING, None, "viewer-day")
    assert await _until(served, "cat", request, 403)
    await call(served.app, "DELETE", SECRETS.format("carmel-system") + "/token-cat")
    assert await _until(served, "cat", request, 401)


async def _until(served: Served, user: str, request: tuple[str, str, Any], status: int) -> bool:
    """A write was answered, its watchers are told within the same moment: a few turns of the loop."""
    for _ in range(50):
        if await statuses(served, user, request) == [status]:
            return True
    return False


@pytest.mark.parametrize(
    "data",
    [{}, {"sha256": "!"}, {"sha256": "YQ==", "user": "YQ=="}, {"user": "YQ=="}],
)
async def test_half_a_token_opens_nothing(served: Served, data: dict[str, str]) -> None:
    secret = {"metadata": {"name": "half", "namespace": "carmel-system"}, "type": "carmel.dev/token", "data": data}
    await call(served.app, "POST", SECRETS.format("carmel-system"), secret)
    answer = await call(served.app, "GET", "/version", headers={"authorization": "Bearer a"}, state=NOBODY)
    assert answer.status == 401


async def test_reviews(served: Served) -> None:
    await login(served, "bob", "day")
    await bind(served, "operator", "bob", "default")
    base = "/apis/authorization.k8s.io/v1"

    async def allowed(**spec: Any) -> bool:
        answer = await as_user(served, "bob", "POST", f"{base}/selfsubjectaccessreviews", {"spec": spec})
        assert answer.status == 201
        return bool(answer.json()["status"]["allowed"])

    wanted = {"group": "carmel.dev", "resource": "virtualmachines", "verb": "create"}
    assert await allowed(resourceAttributes={**wanted, "namespace": "default"})
    assert not await allowed(resourceAttributes={**wanted, "namespace": "team"})
    assert not await allowed(resourceAttributes=wanted)
    assert not await allowed(resourceAttributes={"verb": "*", "group": "*", "resource": "*", "namespace": "default"})
    assert await allowed(nonResourceAttributes={"path": "/healthz", "verb": "get"})
    assert not await allowed(nonResourceAttributes={"path": "/metrics", "verb": "get"})
    rules = await as_user(served, "bob", "POST", f"{base}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    assert any("virtualmachines" in rule["resources"] for rule in rules.json()["status"]["resourceRules"])
    me = await as_user(served, "bob", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert me.json()["status"]["userInfo"] == {"username": "bob", "groups": ["day", "system:authenticated"]}
    wrong: tuple[Any, ...] = ({}, {"spec": []}, {"spec": {"resourceAttributes": {"verb": 1}}}, {"kind": "Pod"})
    for bad in wrong:
        answer = await as_user(served, "bob", "POST", f"{base}/selfsubjectaccessreviews", bad)
        assert answer.status == 400
    assert (await as_user(served, "bob", "GET", f"{base}/selfsubjectaccessreviews")).status in {403, 405}


async def test_other_users_of_the_machine_need_a_binding(served: Served) -> None:
    stranger = {"peer_uid": 54321}
    answer = await call(served.app, "GET", VMS.format("default"), state=stranger)
    assert answer.status == 403
    assert 'User "uid-54321"' in answer.json()["message"]
    await bind(served, "viewer", "uid-54321", "default")
    for _ in range(50):
        answer = await call(served.app, "GET", VMS.format("default"), state=stranger)
        if answer.status == 200:
            break
    assert answer.status == 200


def test_local_users() -> None:
    assert "system:masters" in local_user(0).groups
    assert "system:masters" in local_user(os.geteuid()).groups
    stranger = local_user(54321)
    assert (stranger.name, stranger.groups) == ("uid-54321", frozenset({"system:authenticated"}))
    assert "system:masters" in local_user(54321, owner_uid=54321).groups
