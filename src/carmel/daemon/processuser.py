"""The account that programs run as which read what comes from outside."""

from __future__ import annotations

import os
import pwd

from carmel.storage.files import ProcessUser


def process_user(name: str) -> ProcessUser | None:
    """The account by numbers. ``None`` where the daemon is no root, or there is no such account: then starting a VM
    says what to do."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return ProcessUser(entry.pw_uid, entry.pw_gid)
