"""The machine that Carmel runs on, or a recorded one, as one value."""

from carmel.hardware.model import Hardware

__all__ = ["Hardware"]
