from __future__ import annotations

from datetime import timedelta

from carmel.controllers.runtime import condition, find_condition, is_true, remove_condition, set_conditions
from carmel.controllers.runtime.conditions import error_message
from carmel.errors import Refused
from carmel.resources.base import Status
from tests.fakes.clock import START


def test_time_moves_with_the_status_only() -> None:
    status = Status()
    set_conditions(status, [condition("Ready", "False", "Waiting", "for a disk")], START)
    set_conditions(status, [condition("Ready", "False", "Waiting", "for a kernel")], START + timedelta(minutes=1))
    found = find_condition(status, "Ready")
    assert found is not None
    assert (found.message, found.last_transition_time) == ("for a kernel", START)
    set_conditions(status, [condition("Ready", "True", "Running")], START + timedelta(minutes=2))
    found = find_condition(status, "Ready")
    assert found is not None
    assert found.last_transition_time == START + timedelta(minutes=2)
    assert is_true(status, "Ready")


def test_others_stay_as_they_are() -> None:
    status = Status()
    set_conditions(status, [condition("A", "True", "Yes"), condition("B", "True", "Yes")], START)
    before = find_condition(status, "A")
    set_conditions(status, [condition("B", "False", "No")], START + timedelta(minutes=1))
    assert find_condition(status, "A") == before
    remove_condition(status, "A")
    remove_condition(status, "B")
    assert status.conditions is None


def test_an_error_is_a_sentence_with_what_to_do() -> None:
    assert error_message(Refused("the port is taken", hint="choose another")) == "the port is taken. Choose another."
    assert error_message(Refused("the port is taken.")) == "the port is taken."
