"""What an NBD server exports, asked with qemu-img: over TLS with a key that both have, never without."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.run import Command, Limits, ProgramFailed, Runner
from carmel.storage.files import ProcessUser, explained
from carmel.units import GIB, MIB

_LIMITS = Limits(seconds=20, cpu_seconds=10, address_space_bytes=2 * GIB, output_bytes=MIB)
_NOT_THERE = ("Requested export not available", "not present")
_NOT_TRUSTED = "TLS"
_OPTIONS = re.compile(r"'driver=nbd,[^']*'")


@dataclass(frozen=True, slots=True)
class ExportAddress:
    """Where an export is."""

    host: str
    port: int
    name: str


@dataclass(frozen=True, slots=True)
class Key:
    """``line`` as GnuTLS' files of keys have it: ``username:hexadecimal``."""

    username: str
    line: bytes = field(repr=False)


async def export_size(
    runner: Runner, export: ExportAddress, key: Key, folder: Path, user: ProcessUser | None = None
) -> int:
    """Bytes. ``folder`` is where the key lies meanwhile, for ``user`` alone.

    Raises ``Refused`` (``ExportNotOffered``, ``ServerNotTrusted``) and ``Unavailable`` (``ServerAway``).
    """
    holder = await asyncio.to_thread(_write_key, folder, key, user)
    try:
        result = await runner.run(_command(export, key, Path(holder.name), user))
        size = json.loads(result.text)["virtual-size"]
    except ProgramFailed as exc:
        raise _explained(export, exc.result.last_words) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise _away(export, "qemu-img does not understand its answer") from exc
    finally:
        await asyncio.to_thread(holder.cleanup)
    if not isinstance(size, int) or size <= 0:
        raise _away(export, "it says that the disk has no size")
    return size


def _command(export: ExportAddress, key: Key, folder: Path, user: ProcessUser | None) -> Command:
    # The name of an export has no commas (resources.datastore.ExportName), nor has an address.
    server = f"server.type=inet,server.host={export.host},server.port={export.port}"
    words = [
        "qemu-img",
        "info",
        "--output=json",
        "--object",
        f"tls-creds-psk,id=tls,endpoint=client,dir=.,username={key.username}",
        "--image-opts",
        f"driver=nbd,{server},export={export.name},tls-creds=tls",
    ]
    # Entered before the change of user, so the way to it may be closed to that user.
    return Command(words, cwd=folder, limits=_LIMITS, user=user.uid if user else None, group=user.gid if user else None)


def _write_key(folder: Path, key: Key, user: ProcessUser | None) -> tempfile.TemporaryDirectory[str]:
    with explained("keep the key of an NBD server"):
        folder.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix="nbd-", dir=folder)
        file = Path(holder.name) / "keys.psk"
        file.touch(mode=0o600)
        file.write_bytes(key.line)
        if user is not None:
            for place in (file, Path(holder.name)):
                os.chown(place, user.uid, user.gid)
    return holder


def _explained(export: ExportAddress, words: str) -> CarmelError:
    # What it was asked, it repeats.
    words = _OPTIONS.sub("the export", words)
    last = (words.splitlines() or ["it said nothing"])[-1][:300]
    if any(said in words for said in _NOT_THERE):
        return Refused(
            f"the server at {export.host} port {export.port} has no export {export.name} at the moment",
            code="ExportNotOffered",
            hint="on a SmartNIC: bind a namespace to the function of that name",
            retryable=True,
        )
    if _NOT_TRUSTED in words:
        return Refused(
            f"the server at {export.host} port {export.port} and this host do not trust each other: {last}",
            code="ServerNotTrusted",
            hint="is the key in the Secret the server's?",
            retryable=True,
        )
    return _away(export, last)


def _away(export: ExportAddress, why: str) -> Unavailable:
    return Unavailable(f"no NBD server answers at {export.host} port {export.port}: {why}", code="ServerAway")
