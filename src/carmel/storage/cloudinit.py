"""cloud-init's NoCloud seed: an ISO image with the volume id ``cidata`` (cloud-init's manual, "NoCloud").

ssh keys and the host's name go into the meta-data, so that they reach the guest whatever the user data is: user data
is passed on byte for byte and never parsed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.storage.files import explained, sync_directory
from carmel.storage.iso9660 import iso_image

VOLUME_ID = "cidata"
MAX_USER_DATA = 1024 * 1024
MAX_NETWORK_DATA = 64 * 1024

_NOTHING = b"#cloud-config\n{}\n"
# What cloud-init takes as user data begins with one of these; anything else it ignores without a word to anybody.
_BEGINNINGS = (b"#", b"Content-Type:", b"MIME-Version:", b"From ", b"\x1f\x8b")
_KEY = re.compile(r"[A-Za-z0-9@._+-]+(?: [\x20-\x7e\u0080-\uffff]+)+")


@dataclass(frozen=True, slots=True)
class Seed:
    """What a guest is told at its first boot. Another ``instance_id`` makes it a first boot again."""

    instance_id: str
    host_name: str
    user_data: bytes | None = None
    network_data: bytes | None = None
    ssh_authorized_keys: Sequence[str] = ()


def seed_image(seed: Seed) -> bytes:
    """The ISO image. Raises ``Refused`` (``BadUserData``, ``BadNetworkData``, ``BadSshKey``)."""
    user_data = _NOTHING if seed.user_data is None or not seed.user_data.strip() else seed.user_data
    if len(user_data) > MAX_USER_DATA:
        raise Refused(f"the user data is larger than {MAX_USER_DATA} bytes", code="BadUserData", field="spec.cloudInit")
    if not user_data.startswith(_BEGINNINGS):
        raise Refused(
            "cloud-init would ignore this user data: its first line does not say what it is",
            code="BadUserData",
            hint="begin it with #cloud-config, or with #! for a script",
            field="spec.cloudInit.userDataSecretRef",
        )
    if seed.network_data is not None and len(seed.network_data) > MAX_NETWORK_DATA:
        raise Refused(
            f"the network data is larger than {MAX_NETWORK_DATA} bytes",
            code="BadNetworkData",
            field="spec.cloudInit.networkDataSecretRef",
        )
    files = {"meta-data": _meta_data(seed), "user-data": user_data}
    if seed.network_data is not None:
        files["network-config"] = seed.network_data
    return iso_image(VOLUME_ID, files)


def write_seed(seed: Seed, destination: Path) -> None:
    """Write the ISO image, whole or not at all. Blocking."""
    image = seed_image(seed)
    part = destination.with_name(f".{destination.name}.part")
    with explained("write the cloud-init seed"):
        try:
            # It may hold passwords.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(image)
                file.flush()
                os.fsync(descriptor)
            part.rename(destination)
            sync_directory(destination.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def _meta_data(seed: Seed) -> bytes:
    """JSON, which is YAML: nothing that a value holds can become structure."""
    keys = []
    for index, key in enumerate(seed.ssh_authorized_keys):
        if not _KEY.fullmatch(key.strip()):
            raise Refused(
                "this is not one public ssh key",
                code="BadSshKey",
                hint="give the one line of a file such as ~/.ssh/id_ed25519.pub",
                field=f"spec.cloudInit.sshAuthorizedKeys[{index}]",
            )
        keys.append(key.strip())
    values = {"instance-id": seed.instance_id, "local-hostname": seed.host_name, "public-keys": keys}
    return (json.dumps(values, indent=1) + "\n").encode()
