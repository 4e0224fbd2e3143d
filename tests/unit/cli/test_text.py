from __future__ import annotations

import pytest

from carmel.cli.text import BadDuration, age, cell, columns, duration, parse_duration, safe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h"), (3700, "1h1m"), (90000, "1d1h"), (8 * 86400 + 3600, "8d")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("0.5s", 0.5)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "-5", "m5", "1s1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadDuration):
        parse_duration(text)


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    assert safe("a\x1b[31mred\x07\r\nb\u202ec") == "a?[31mred? b?c"


def test_cells_show_nothing_as_kubectl_does() -> None:
    assert [cell(one) for one in (None, "", True, 0)] == ["<none>", "<none>", "true", "0"]


def test_columns_stand_under_each_other_and_remember_their_widths() -> None:
    widths: list[int] = []
    assert list(columns([["NAME", "AGE"], ["long-name", "1s"]], widths)) == ["NAME        AGE", "long-name   1s"]
    assert list(columns([["b", "2s"]], widths)) == ["b           2s"]


def test_an_age_that_cannot_be_read_is_said_to_be_unknown() -> None:
    assert age("yesterday") == "<unknown>"
    assert age("2999-01-01T00:00:00Z") == "0s"
