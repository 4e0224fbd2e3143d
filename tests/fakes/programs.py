"""A runner whose programs all end well and say nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from carmel.run import Command, Result


@dataclass
class QuietRunner:
    """Fulfils ``run.Runner``."""

    ran: list[list[str]] = field(default_factory=list)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.ran.append([str(word) for word in command.argv])
        return Result(0, b"", b"")
