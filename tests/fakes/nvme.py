"""NVMe functions of a NIC that behave, in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from carmel.errors import Conflict, Refused
from carmel.resources.smartnic import FunctionKind, FunctionStatus
from carmel.smartnic.nvme.functions import Show


class FakeNvme:
    """``shows`` is what the hardware does: it is there for the next daemon, too."""

    def __init__(self, shows: dict[str, Show] | None = None) -> None:
        self.shows: dict[str, Show] = {} if shows is None else shows
        self._names = ("pf0nvme0", "pf0nvme1")

    async def functions(self) -> Sequence[FunctionStatus]:
        return [FunctionStatus(id=name, kind=FunctionKind.NVME, serial=name) for name in self._names]

    async def adopt(self, uids: Collection[str]) -> None:
        for uid in [uid for uid in self.shows if uid not in uids]:
            del self.shows[uid]

    async def show(self, what: Show) -> None:
        if what.function not in self._names:
            raise Refused(f"there is no {what.function}", code="NoSuchFunction")
        for uid, other in self.shows.items():
            if uid != what.uid and (other.function == what.function or other.device == what.device):
                raise Conflict(f"{what.function} is taken", code="FunctionInUse")
        self.shows[what.uid] = what

    async def hide(self, uid: str) -> None:
        self.shows.pop(uid, None)

    async def shown(self, uid: str) -> str | None:
        found = self.shows.get(uid)
        return None if found is None else found.function

    async def aclose(self) -> None:
        return None
