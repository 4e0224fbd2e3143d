"""What was applied, remembered so that a boot at which nothing is new costs next to nothing.

Imports little on purpose: this runs before the network at every boot, on slow processors too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carmel import __version__

ESP = "boot/efi"
FILE = "carmel.yaml"
HOST_KEYS = tuple(f"etc/ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa"))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """``source``: digest of the ``carmel.yaml`` that was applied whole, empty while one is being applied.

    ``files``: what we wrote, by path below the root, with the digest of each; ``shadow`` that of the password file.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    shadow: str = ""
    version: str = __version__

    def to_bytes(self) -> bytes:
        facts = {"files": dict(self.files), "source": self.source, "shadow": self.shadow, "version": self.version}
        return json.dumps(facts, sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> Record:
        """A record that is missing or damaged remembers nothing: what it named stays where it is."""
        try:
            facts = json.loads(path.read_bytes())
            files = {str(name): str(value) for name, value in facts["files"].items()}
            return cls(files, str(facts["source"]), str(facts["shadow"]), str(facts["version"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()


def nothing_is_new(record: Record, root: Path) -> bool:
    """The same file was applied whole by this version, and nobody has changed what came of it."""
    try:
        return (
            record.version == __version__
            and digest((root / ESP / FILE).read_bytes()) == record.source
            and digest((root / "etc/shadow").read_bytes()) == record.shadow
            and all(digest((root / path).read_bytes()) == value for path, value in record.files.items())
            and all((root / path).stat().st_size for key in HOST_KEYS for path in (key, f"{key}.pub"))
        )
    except OSError:
        return False
