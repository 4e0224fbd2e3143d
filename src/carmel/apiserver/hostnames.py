"""What a SmartNIC calls the host that it serves: a user and a group, in the manner of Kubernetes' nodes."""

from __future__ import annotations

import re

GROUP = "system:hosts"
HOST_USER = "system:host:"
MAX_HOST_NAME = 52
"""With ``HOST_USER`` before it, what a certificate's common name may have (RFC 5280, ub-common-name: 64)."""
# An RFC 1123 label. Not that of ``resources.base``: whoever signs certificates is to start without pydantic.
_LABEL = re.compile(rf"[a-z0-9]([-a-z0-9]{{0,{MAX_HOST_NAME - 2}}}[a-z0-9])?")


def is_host_name(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def host_of(common_name: str, organisations: tuple[str, ...]) -> str | None:
    """The host that a certificate's subject names; ``None`` if it names something else."""
    name = common_name.removeprefix(HOST_USER)
    return name if name != common_name and is_host_name(name) and organisations == (GROUP,) else None
