"""Contexts that Carmel writes are found again, and nothing else of the file changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from carmel.client.context_file import remove_context, save_context
from carmel.client.contexts import choose_context, context_names
from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import Invalid, NotFound, Refused

HERE = HttpsEndpoint("127.0.0.1", 1234, ca="CERTIFICATE\n", token="t" * 43, server_name="localhost")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KUBECONFIG", "CARMEL_CONTEXT", "CARMEL_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".config/carmel/config"


def test_what_was_saved_is_found(file: Path) -> None:
    assert save_context("lab", HERE, "dev") == file
    found = choose_context("lab")
    assert (found.endpoint, found.namespace) == (HERE, "dev")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # kubectl reads the same file.
    config = yaml.safe_load(file.read_text())
    assert (config["kind"], config["contexts"][0]["context"]["cluster"]) == ("Config", "lab")
    # The default is this host's daemon as before.
    assert choose_context().name == "local"


def test_a_client_certificate_is_kept_as_kubectl_keeps_it(file: Path) -> None:
    shown = HttpsEndpoint("127.0.0.1", 1234, ca="CERTIFICATE\n", certificate="MINE\n", key="SECRET\n")
    save_context("nic", shown)
    assert choose_context("nic").endpoint == shown
    assert set(yaml.safe_load(file.read_text())["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_others_stay(file: Path) -> None:
    save_context("one", HERE)
    config = yaml.safe_load(file.read_text()) | {"current-context": "one", "preferences": {"colors": True}}
    file.write_text(yaml.safe_dump(config))
    save_context("two", HERE)
    save_context("two", HttpsEndpoint("127.0.0.1", 99, token="u"))
    assert context_names() == ["local", "one", "two"]
    assert str(choose_context("two").endpoint) == "https://127.0.0.1:99"
    remove_context("two")
    assert context_names() == ["local", "one"]
    assert yaml.safe_load(file.read_text())["preferences"] == {"colors": True}
    assert choose_context().name == "one"
    remove_context("one")
    assert choose_context().name == "local"
    with pytest.raises(NotFound):
        choose_context("one")
    assert [path.name for path in file.parent.iterdir()] == ["config"]


def test_nothing_to_remove_makes_no_file(file: Path) -> None:
    remove_context("lab")
    assert not file.exists()


def test_a_file_that_is_no_configuration_is_left_alone(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("- a list\n")
    with pytest.raises(Invalid):
        save_context("lab", HERE)
    assert file.read_text() == "- a list\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.parent.chmod(0o500)
    with pytest.raises(Refused) as caught:
        save_context("lab", HERE)
    assert caught.value.code == "ConfigNotWritable"


def test_a_place_that_is_no_directory(file: Path) -> None:
    file.parent.parent.mkdir(parents=True)
    file.parent.write_text("")
    with pytest.raises(Refused):
        save_context("lab", HERE)
