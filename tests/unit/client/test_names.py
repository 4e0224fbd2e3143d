"""Names on their way into a path."""

from __future__ import annotations

import pytest

from carmel.client.discovery import quoted
from carmel.errors import Invalid


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../up", "a%2fb"])
def test_what_can_be_no_name_is_told_before_anything_is_sent(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        quoted(name)
    assert caught.value.field == "metadata.name"


@pytest.mark.parametrize(("name", "segment"), [("web-0", "web-0"), ("a:b", "a%3Ab"), ("ü?#", "%C3%BC%3F%23")])
def test_what_may_be_one_is_one_segment(name: str, segment: str) -> None:
    assert quoted(name) == segment
