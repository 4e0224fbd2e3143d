"""Open vSwitch is put right: after a start that lost its flows, and when it is deaf; but not where it is another's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from carmel.daemon.ovswatch import OvsWatch
from carmel.errors import Unavailable
from carmel.network.ovs.health import Trouble
from tests.fakes.clock import FakeClock

DEAF = Trouble("PacketsLost", "nothing passes", heals=True)


class Patient:
    """An Open vSwitch by what is seen of it."""

    def __init__(self) -> None:
        self.started: int | None = 1
        self.trouble: Trouble | None = None
        self.ours = True
        self.restarts = 0
        self.restored = 0
        self.broken = False
        self.told: list[str | None] = []

    def start_of_vswitchd(self) -> int | None:
        return self.started

    async def look(self) -> Trouble | None:
        return self.trouble

    async def is_ours_to_restart(self) -> bool:
        return self.ours

    async def restart(self) -> None:
        self.restarts += 1
        self.started = (self.started or 0) + 1
        self.trouble = None

    async def restore(self) -> None:
        if self.broken:
            raise Unavailable("it does not answer", code="SwitchNotReady")
        self.restored += 1

    def tell(self, trouble: Trouble | None) -> None:
        self.told.append(None if trouble is None else trouble.reason)


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def watch(patient: Patient, clock: FakeClock) -> AsyncIterator[OvsWatch]:
    made = OvsWatch(clock, patient, patient.restore, patient.tell)
    made.start()
    yield made
    await made.stop()


async def test_one_that_is_well_is_left_alone(patient: Patient, clock: FakeClock, watch: OvsWatch) -> None:
    await clock.advance(100)
    assert (patient.restarts, patient.restored, patient.told) == (0, 0, [])


async def test_what_a_start_lost_is_put_back_within_a_second(
    patient: Patient, clock: FakeClock, watch: OvsWatch
) -> None:
    patient.started = None
    await clock.advance(3)
    patient.started = 2
    await clock.advance(1)
    assert patient.restored == 1
    await clock.advance(30)
    assert patient.restored == 1


async def test_what_could_not_be_put_back_is_tried_again(patient: Patient, clock: FakeClock, watch: OvsWatch) -> None:
    patient.broken, patient.started = True, 2
    await clock.advance(3)
    assert patient.told == ["SwitchNotReady"]
    patient.broken = False
    await clock.advance(1)
    assert patient.restored == 1
    assert patient.told == ["SwitchNotReady", None]


async def test_what_was_not_there_at_first_is_put_in_place_later(
    patient: Patient, clock: FakeClock, watch: OvsWatch
) -> None:
    watch.lost()
    await clock.advance(1)
    assert patient.restored == 1


async def test_a_deaf_one_is_started_again_and_told_of(patient: Patient, clock: FakeClock, watch: OvsWatch) -> None:
    patient.trouble = DEAF
    await clock.advance(11)
    assert (patient.restarts, patient.restored) == (1, 1)
    await clock.advance(10)
    assert patient.told == ["PacketsLost", None]


async def test_one_that_stays_deaf_is_not_started_again_and_again(
    patient: Patient, clock: FakeClock, watch: OvsWatch
) -> None:
    async def useless() -> None:
        patient.restarts += 1

    patient.restart = useless  # type: ignore[method-assign]
    patient.trouble = DEAF
    await clock.advance(60)
    assert patient.restarts == 1
    await clock.advance(60)
    assert patient.restarts == 2
    assert patient.told[-1] == "PacketsLost"


async def test_one_that_is_not_ours_is_told_of_only(patient: Patient, clock: FakeClock, watch: OvsWatch) -> None:
    patient.ours, patient.trouble = False, DEAF
    await clock.advance(100)
    assert patient.restarts == 0
    assert patient.told == ["PacketsLost"]
