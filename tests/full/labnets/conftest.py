"""The lab's machines as in tests/system/lab: those that its short tests leave out."""

from tests.system.lab.conftest import home, outer

__all__ = ["home", "outer"]
