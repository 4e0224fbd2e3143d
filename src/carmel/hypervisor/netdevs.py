"""Options of ``-netdev`` that name open files. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES_FILES = ("fd", "fds", "vhostfd", "vhostfds")
"""Of tap (qapi/net.json, NetdevTapOptions): one number, or several with colons between."""


def with_names(netdev: Mapping[str, object], names: Mapping[int, str]) -> dict[str, object]:
    """The options, with files by the ``names`` that QEMU got them under (``getfd``), not by our numbers."""
    return {key: _named(value, names) if key in _NAMES_FILES else value for key, value in netdev.items()}


def _named(value: object, names: Mapping[int, str]) -> str:
    return ":".join(names[int(number)] for number in str(value).split(":"))
