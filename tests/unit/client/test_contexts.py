from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from carmel.client.contexts import choose_context, context_names
from carmel.client.endpoint import HttpsEndpoint, UnixEndpoint
from carmel.errors import CarmelError, Invalid, NotFound, Refused

PEM = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"


def config(name: str, server: str = "https://pi.example:7443/carmel/", **user: Any) -> dict[str, Any]:
    data = base64.b64encode(PEM.encode()).decode()
    return {
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "current-context": name,
    }


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "CARMEL_RUN_DIR": str(tmp_path / "run")}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_by_default_it_is_this_host(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", config("cluster"))
    context = choose_context(None, env)
    assert (context.name, context.endpoint) == ("local", UnixEndpoint(tmp_path / "run/api.sock"))


def test_a_context_of_kubectl_is_taken_by_its_name(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", config("cluster"))
    context = choose_context("cluster", env)
    assert context.namespace == "lab"
    assert context.endpoint == HttpsEndpoint("pi.example", 7443, base_path="/carmel", ca=PEM, token="t")
    assert str(context.endpoint) == "https://pi.example:7443/carmel"
    assert "t" not in repr(context.endpoint).replace("https", "").partition("token")[2]


def test_carmels_own_file_has_a_default_and_wins(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".config/carmel/config", config("pi", server="https://own"))
    other = write(tmp_path / "other", config("pi", server="https://other"))
    env["KUBECONFIG"] = f"/nonexistent:{other}"
    assert str(choose_context(None, env).endpoint) == "https://own:443"
    assert str(choose_context("pi", env).endpoint) == "https://own:443"
    assert isinstance(choose_context("local", env).endpoint, UnixEndpoint)
    assert choose_context(None, {**env, "CARMEL_CONTEXT": "local"}).name == "local"
    assert context_names(env) == ["local", "pi"]


def test_files_that_are_named_are_read(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "ca.pem").write_text(PEM)
    content = config("x", tokenFile="token")
    content["clusters"][0]["cluster"] = {"server": "https://h", "certificate-authority": "ca.pem"}
    env["KUBECONFIG"] = str(write(tmp_path / "kubeconfig", content))
    endpoint = choose_context("x", env).endpoint
    assert isinstance(endpoint, HttpsEndpoint)
    assert (endpoint.token, endpoint.ca) == ("from-file", PEM)


def test_an_unknown_name_tells_the_known_ones(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", config("cluster"))
    with pytest.raises(NotFound) as caught:
        choose_context("nowhere", env)
    assert caught.value.hint == "contexts: local, cluster"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (config("x", server="http://plain"), Invalid),
        (config("x", server="https://h:port"), Invalid),
        (config("x", server=""), Invalid),
        (config("x", exec={"command": "sh"}), Refused),
        (config("x", tokenFile="/nonexistent"), Refused),
        (config("x", **{"client-certificate-data": "%%%"}), Invalid),
        (["a list"], Invalid),
    ],
)
def test_configurations_that_cannot_be_used(
    env: dict[str, str], tmp_path: Path, content: Any, kind: type[CarmelError]
) -> None:
    env["KUBECONFIG"] = str(write(tmp_path / "kubeconfig", content))
    with pytest.raises(kind):
        choose_context("x", env)


def test_a_file_that_is_no_yaml(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("a: [")
    env["KUBECONFIG"] = str(tmp_path / "kubeconfig")
    with pytest.raises(Invalid):
        choose_context("x", env)
    assert context_names(env) == ["local"]
