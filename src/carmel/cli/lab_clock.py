"""How long `carmel lab up` still waits."""

from __future__ import annotations

import time

from carmel.errors import TimedOut


class Clock:
    """``name``: of the machine whose console tells more, if it is too late."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._deadline = time.monotonic() + seconds

    def left(self, why: str = "", name: str | None = None) -> float:
        """Seconds. Raises ``TimedOut``, which says ``why``."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            machine = name or self._name
            raise TimedOut(
                f"{machine} did not answer in time{f': {why}' if why else ''}",
                code="WaitTimedOut",
                hint=f"`carmel logs {machine}` shows its console; run `carmel lab up` again to wait on",
            )
        return left
