"""The face of what shows namespaces to the host: a model of NIC each, behind one protocol."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from carmel.resources.smartnic import FunctionStatus


@dataclass(frozen=True, slots=True)
class Limits:
    """What goes through at most in a second. ``iops``: reads and writes together. ``None``: all that there is."""

    iops: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """A namespace in a function: ``device`` is the block device that it stands on, ``uid`` names it for ever."""

    uid: str
    function: str
    device: Path
    block_bytes: int
    limits: Limits = Limits()


class NvmeFunctions(Protocol):
    """The NVMe functions of a NIC. Each call says what is to be and may be repeated; none waits for the host."""

    async def functions(self) -> Sequence[FunctionStatus]:
        """Those there are, whatever they show."""
        ...

    async def adopt(self, uids: Collection[str]) -> None:
        """Begin: what shows a namespace that is not among these is ended."""
        ...

    async def show(self, what: Show) -> None:
        """Raises ``Refused`` (``NoSuchFunction``, ``DeviceInUse``...) and ``Unavailable``; then it shows nothing."""
        ...

    async def hide(self, uid: str) -> None:
        """Its function shows nothing afterwards. Gone already is fine."""
        ...

    async def shown(self, uid: str) -> str | None:
        """The function that shows it now."""
        ...

    async def aclose(self) -> None:
        """Let go: what is shown stays."""
        ...
