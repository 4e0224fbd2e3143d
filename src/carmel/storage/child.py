"""Python children that read what comes from outside: how they are called, and what they say.

A child imports what it needs, gives up root for good, and prints one JSON object a line: ``{"progress": [...]}`` any
number of times, at the end ``{"result": ...}``, or ``{"error": ...}`` as ``CarmelError.to_dict`` has it. What the
parent reads is bounded by the runner and its shape is checked: the child may have been taken over.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmel.errors import CarmelError, InternalError, Refused, Unavailable
from carmel.run import Command, Limits, ProgramFailed, Runner
from carmel.storage.files import ProcessUser

_MAX_WORDS = 2_000
_LATE_CODECS = ("ascii", "latin-1", "iso-8859-1", "idna", "utf-8")
"""Python imports these when they are first used (host names, headers): too late for a user who may not read them."""


@dataclass(frozen=True, slots=True)
class Child:
    """Calls modules of this package as children."""

    runner: Runner
    user: ProcessUser | None = None

    async def call(
        self,
        module: str,
        request: Mapping[str, Any],
        limits: Limits,
        *,
        cwd: Path | None = None,
        on_progress: Callable[[list[Any]], None] | None = None,
    ) -> dict[str, Any]:
        """What the child answered. Raises what it raised (as ``Refused`` or ``Unavailable`` with its code).

        ``cwd`` is entered as the daemon's user: relative names in it are reached even where the way to it is closed.
        """
        words = {**request, "user": None if self.user is None else [self.user.uid, self.user.gid]}
        answers = _Answers(on_progress)
        # -P: the directory a child works in never is where it finds its modules.
        command = Command([Path(sys.executable), "-P", "-m", module, json.dumps(words)], cwd=cwd, limits=limits)
        result = await self.runner.run(command, check=False, on_line=answers.line)
        if answers.error is not None:
            raise answers.error
        if result.status != 0 or answers.result is None:
            raise ProgramFailed(command, result)
        return answers.result


class _Answers:
    def __init__(self, on_progress: Callable[[list[Any]], None] | None) -> None:
        self.result: dict[str, Any] | None = None
        self.error: CarmelError | None = None
        self._on_progress = on_progress

    def line(self, line: str) -> None:
        if not line.startswith("{"):
            return
        try:
            answer = json.loads(line)
        except ValueError:
            return
        match answer:
            case {"progress": list(values)} if self._on_progress is not None:
                self._on_progress(values)
            case {"result": dict(result)}:
                self.result = result
            case {"error": {"code": str(code), "message": str(message), **rest}}:
                self.error = _error(code, message, rest.get("hint"), retryable=rest.get("retryable") is True)


def _error(code: str, message: str, hint: object, *, retryable: bool) -> CarmelError:
    sort = Unavailable if retryable else Refused
    return sort(message[:_MAX_WORDS], code=code[:64], hint=hint[:_MAX_WORDS] if isinstance(hint, str) else None)


# -- the child's side ---------------------------------------------------------------------------------------------
def main(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do ``work`` on the request in the first argument, print its answer, and end the process."""
    request = json.loads(sys.argv[1])
    if request["user"] is not None:
        drop_root(ProcessUser(*request["user"]))
    try:
        say({"result": work(request)})
    except CarmelError as error:
        say({"error": error.to_dict()})
        sys.exit(1)
    except MemoryError:
        say({"error": InternalError("it takes more memory than it may", code="OutOfMemory").to_dict()})
        sys.exit(1)


def say(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def drop_root(user: ProcessUser) -> None:
    """Be ``user`` and nobody else from here on (setresuid(2)). After the imports: that user may not read our code."""
    for name in _LATE_CODECS:
        codecs.lookup(name)
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
