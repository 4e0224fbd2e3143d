"""Work that makes tens of thousands of small values and no garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def burst() -> Iterator[None]:
    """Without the cyclic garbage collector, which would look at all that is being made again and again as it grows:
    measured, it doubles the time to compile ten thousand rules. What loses its last reference is freed as ever."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
