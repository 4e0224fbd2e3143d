"""The user's ssh key for VMs, and which public key goes into a VM."""

from __future__ import annotations

import re
from pathlib import Path

from carmel.client.contexts import config_directory
from carmel.errors import Refused

_PUBLIC_KEY = re.compile(r"(ssh-[a-z0-9@.-]+|ecdsa-[a-z0-9@.-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( .*)?")
_MAX_BYTES = 16384


def own_key() -> Path:
    """The private key that ``carmel run`` makes once for the user, and ``carmel ssh`` uses."""
    return config_directory() / "id_ed25519"


def known_hosts_directory() -> Path:
    """Host keys of VMs, a file named by each one's uid."""
    return config_directory() / "known_hosts.d"


def public_key(file: str | None) -> str:
    """One line for ``sshAuthorizedKeys``: of ``file`` (a public key, or a private one with its .pub beside it), or the
    user's own, which is made if there is none. Raises ``Refused``.
    """
    if file is not None:
        return _read(_public_part(Path(file)))
    key = own_key()
    if not key.exists():
        _make(key)
    return _read(key.with_name(key.name + ".pub"))


def _public_part(path: Path) -> Path:
    beside = path.with_name(path.name + ".pub")
    return beside if path.suffix != ".pub" and beside.exists() else path


def _read(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError as exc:
        raise Refused(f"{path} cannot be read: {exc.strerror}", code="KeyUnreadable") from exc
    if "PRIVATE KEY" in text:
        raise Refused(
            f"{path} is a private key, and there is no {path.name}.pub beside it",
            code="NotAPublicKey",
            hint=f"ssh-keygen -y -f {path} > {path}.pub makes it",
        )
    if not _PUBLIC_KEY.fullmatch(text):
        raise Refused(f"{path} is not an ssh public key of one line", code="NotAPublicKey")
    return text


def _make(key: Path) -> None:
    import asyncio  # 60 ms, once in a user's life

    from carmel.run import Command, SystemRunner

    try:
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise Refused(f"{key.parent} cannot be made: {exc.strerror}", code="KeyUnreadable") from exc
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "carmel", "-f", key)
    asyncio.run(SystemRunner().run(Command(argv)))
