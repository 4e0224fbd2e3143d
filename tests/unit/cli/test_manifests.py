from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from carmel.cli.manifests import parse_documents, parse_value, read_manifests, to_yaml
from carmel.errors import CarmelError, Invalid, Refused

VM = "apiVersion: carmel.dev/v1alpha1\nkind: VirtualMachine\nmetadata: {name: a}\n"


def test_documents_lists_and_empty_ones() -> None:
    listed = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n"
    text = f"---\n{VM}---\n---\n{listed}"
    assert [one["kind"] for one in parse_documents(text, "x")] == ["VirtualMachine", "Secret"]


def test_a_time_stays_the_text_it_is() -> None:
    assert parse_value("t: 2026-01-01T00:00:00Z", "x") == {"t": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1"),
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands here twice"),
        ("- 1\n", "no object"),
        ("kind: A\nmetadata: {name: b}\n", "no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: b}\n", "no kind"),
        ("apiVersion: v1\nkind: A\n", "no metadata.name"),
        ("apiVersion: v1\nkind: [A]\nmetadata: {name: b}\n", "no kind"),
        ("!!python/object/apply:os.system ['true']", "x cannot be read"),
        ("[" * 3000, "x cannot be read"),
    ],
)
def test_what_is_no_manifest_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_documents(text, "x")
    assert said in caught.value.message


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_an_error_of_ours(text: str) -> None:
    try:
        parse_documents(text, "x")
    except CarmelError:
        return


def test_directories_standard_input_and_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.yaml").write_text(VM)
    (tmp_path / "a.json").write_text('{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}')
    (tmp_path / "notes.txt").write_text("not a manifest: [")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/c.yml").write_text(VM)
    assert [Path(one.origin).name for one in read_manifests((str(tmp_path),))] == ["a.json", "b.yaml"]
    assert len(read_manifests((str(tmp_path),), recursive=True)) == 3
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(VM.encode())))
    assert read_manifests(("-",))[0].origin == "standard input"
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(Invalid):
        read_manifests((str(tmp_path / "latin.yaml"),))
    for name in ("nowhere.yaml", "below/empty"):
        (tmp_path / "below/empty").mkdir(exist_ok=True)
        with pytest.raises(Refused):
            read_manifests((str(tmp_path / name),))


def test_yaml_is_written_so_that_it_reads_back() -> None:
    value = {"b": "on", "a": "line 1\nline 2\n", "t": "2026-01-01T00:00:00Z", "n": [1, None, {"x": True}]}
    text = to_yaml(value)
    assert "a: |" in text
    assert text.index("b:") < text.index("a:")
    assert yaml.safe_load(text)["b"] == "on"
    assert parse_value(text, "x") == value
