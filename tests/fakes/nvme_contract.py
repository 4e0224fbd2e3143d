"""What any NIC's NVMe functions do, fake or real."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from carmel.errors import Conflict, Refused
from carmel.resources.smartnic import FunctionKind
from carmel.smartnic.nvme.functions import Limits, NvmeFunctions, Show

UID, OTHER = "11111111-aaaa", "22222222-bbbb"


@dataclass(frozen=True, slots=True)
class Subject:
    """``running`` are the functions ``pf0nvme0`` and ``pf0nvme1`` of one NIC, as one daemon after the other has them.
    ``disk`` makes a disk of that name."""

    running: Callable[[Collection[str]], AbstractAsyncContextManager[NvmeFunctions]]
    disk: Callable[[str], Path]

    def show(
        self, uid: str = UID, function: str = "pf0nvme0", disk: str = "disk", limits: Limits | None = None
    ) -> Show:
        return Show(uid, function, self.disk(disk), 512, limits or Limits())


Check = Callable[[Subject], Awaitable[None]]


async def functions_are_told(subject: Subject) -> None:
    async with subject.running([]) as functions:
        found = await functions.functions()
        assert [(one.id, one.kind, one.serial) for one in found] == [
            (name, FunctionKind.NVME, name) for name in ("pf0nvme0", "pf0nvme1")
        ]


async def shown_and_hidden_as_often_as_one_likes(subject: Subject) -> None:
    async with subject.running([]) as functions:
        assert await functions.shown(UID) is None
        await functions.hide(UID)
        for limits in (None, None, Limits(iops=100)):
            await functions.show(subject.show(limits=limits))
            assert await functions.shown(UID) == "pf0nvme0"
        await functions.show(subject.show(function="pf0nvme1"))
        assert await functions.shown(UID) == "pf0nvme1"
        for _ in range(2):
            await functions.hide(UID)
            assert await functions.shown(UID) is None


async def no_two_namespaces_have_one_function_or_one_disk(subject: Subject) -> None:
    async with subject.running([]) as functions:
        await functions.show(subject.show())
        for function, disk in (("pf0nvme0", "other"), ("pf0nvme1", "disk")):
            with pytest.raises(Conflict) as raised:
                await functions.show(subject.show(OTHER, function, disk))
            assert raised.value.code == "FunctionInUse"
            assert await functions.shown(OTHER) is None
        await functions.show(subject.show(OTHER, "pf0nvme1", "other"))
        await functions.hide(UID)
        await functions.show(subject.show(OTHER, "pf0nvme0", "other"))
        assert await functions.shown(OTHER) == "pf0nvme0"


async def a_function_that_is_not_there_is_refused(subject: Subject) -> None:
    async with subject.running([]) as functions:
        with pytest.raises(Refused) as raised:
            await functions.show(subject.show(function="pf0nvme7"))
        assert raised.value.code == "NoSuchFunction"


async def the_next_daemon_has_what_it_knows_and_ends_the_rest(subject: Subject) -> None:
    async with subject.running([]) as functions:
        await functions.show(subject.show())
        await functions.show(subject.show(OTHER, "pf0nvme1", "other"))
    async with subject.running([OTHER]) as functions:
        assert await functions.shown(OTHER) == "pf0nvme1"
        assert await functions.shown(UID) is None
        await functions.show(subject.show(UID, "pf0nvme0", "disk"))
        assert await functions.shown(UID) == "pf0nvme0"


CONTRACT: tuple[Check, ...] = (
    functions_are_told,
    shown_and_hidden_as_often_as_one_likes,
    no_two_namespaces_have_one_function_or_one_disk,
    a_function_that_is_not_there_is_refused,
    the_next_daemon_has_what_it_knows_and_ends_the_rest,
)
