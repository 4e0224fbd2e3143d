"""What was realised last, in a file: what the next daemon begins with.

What is wanted may have changed since, to something that is refused: then what was realised stays, and with it what the
source guard lets out. It is of this boot only, as taps and bridges are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from carmel.errors import Unavailable
from carmel.network.dataplane import NetworkPlan, PortPlan
from carmel.network.host.takeover import boot_id


@dataclass(frozen=True, slots=True)
class Realised:
    """``boot``: which start of the machine it is of."""

    boot: str
    networks: tuple[NetworkPlan, ...] = ()
    ports: tuple[PortPlan, ...] = ()


_FORMAT = TypeAdapter(Realised)


class Memory:
    """One file. Nothing realised, no file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: bytes | None = None

    def read(self) -> Realised | None:
        """``None``: it cannot be told, for the file was written by another version, or damaged."""
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return Realised(boot_id())
        except OSError:
            return None
        try:
            found = _FORMAT.validate_json(data)
        except ValueError:
            return None
        return found if found.boot == boot_id() else Realised(boot_id())

    def write(self, networks: Iterable[NetworkPlan], ports: Iterable[PortPlan]) -> None:
        """Whole or not at all. Raises ``Unavailable`` (``NotNoted``)."""
        realised = Realised(boot_id(), tuple(networks), tuple(ports))
        data = _FORMAT.dump_json(realised) if realised.networks or realised.ports else None
        if data is not None and data == self._written:
            return
        self._written = None
        try:
            if data is None:
                self._file.unlink(missing_ok=True)
            else:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part = self._file.with_suffix(".part")
                part.write_bytes(data)
                part.replace(self._file)
        except OSError as exc:
            raise Unavailable(f"cannot note what networks there are: {exc.strerror}", code="NotNoted") from exc
        self._written = data
