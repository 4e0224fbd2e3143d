"""Sentences that several parts say."""

from __future__ import annotations

from carmel.errors import Refused


def not_permitted() -> Refused:
    return Refused(
        "only root, or who has CAP_NET_ADMIN, may make host networks",
        code="NotPermitted",
        hint="run carmeld as root, or use user networks",
    )
