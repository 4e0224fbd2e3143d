from __future__ import annotations

import pytest

from carmel.cli.jsonpath import BadPath, render

OBJECT = {
    "items": [{"metadata": {"name": "a", "labels": {"x/y": "1"}}}, {"metadata": {"name": "b"}}],
    "status": {"n": 3, "yes": True, "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.status.n}", "3"),
        ("status.n", "3"),
        (".status.yes", "true"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[1].metadata.name}-{.items[-1].metadata.name}", "b-b"),
        ('{.items[0].metadata.name}{"\\n"}', "a\n"),
        ("{.items[0].metadata.labels['x/y']}", "1"),
        ('{.status.conditions[?(@.type=="Ready")].status}', "True"),
        ("{.status.conditions[?(@.type!='Ready')].type}", "Other"),
        ("{.not.there}", ""),
        ("{.items[9].metadata.name}", ""),
        ("{$.status.n}", "3"),
        ("{.status.conditions[1]}", '{"type": "Other"}'),
    ],
)
def test_what_scripts_use(template: str, text: str) -> None:
    assert render(template, OBJECT) == text


@pytest.mark.parametrize("template", ["{.a[}", "{..a}", "{.a[?(@.b)]}", "{range .items[*]}"])
def test_what_is_not_known_is_refused_and_not_guessed(template: str) -> None:
    with pytest.raises(BadPath):
        render(template, OBJECT)
