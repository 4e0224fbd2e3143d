"""Secrets that storage needs: they lie in ``carmel-system``, which only administrators of the NIC read."""

from __future__ import annotations

import base64
import binascii
import re

from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Refused
from carmel.hypervisor.psk import Psk
from carmel.resources.core import SECRET, Secret
from carmel.smartnic.nvme.fabrics import ChapKeys

SYSTEM_NAMESPACE = "carmel-system"
KEY_OF_EXPORTS = "nvme-export"
"""Keys ``username`` and ``psk`` (hexadecimal, 32 bytes or more): who may read and write what is exported."""
_LEAST_KEY_BYTES = 32


class ExportKeys:
    """Reads them afresh each time: a Secret that was changed counts at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._secrets: Resources[Secret] = runtime.resources(SECRET, Secret)

    async def psk(self) -> Psk:
        """Raises ``Refused`` (``NoExportKey``)."""
        words = await self._words(KEY_OF_EXPORTS)
        username, key = words.get("username", ""), words.get("psk", "")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", username) or not re.fullmatch(r"([0-9A-Fa-f]{2})*", key):
            raise _no_key("its username or psk cannot be read", "NoExportKey", KEY_OF_EXPORTS)
        if len(key) < 2 * _LEAST_KEY_BYTES:
            raise _no_key(f"its psk has less than {_LEAST_KEY_BYTES} bytes", "NoExportKey", KEY_OF_EXPORTS)
        return Psk(username, key)

    async def chap(self, name: str) -> ChapKeys:
        """Raises ``Refused`` (``NoAuthKey``)."""
        words = await self._words(name)
        host, controller = words.get("dhchap", ""), words.get("dhchapController")
        for key in (host, *([controller] if controller is not None else [])):
            # No comma may end the option that it stands in.
            if not re.fullmatch(r"DHHC-1:0[0-3]:[A-Za-z0-9+/=]+:", key):
                raise _no_key("its keys are not of the form DHHC-1:...", "NoAuthKey", name)
        return ChapKeys(host, controller)

    async def _words(self, name: str) -> dict[str, str]:
        secret = await self._secrets.find(Key(SYSTEM_NAMESPACE, name))
        if secret is None:
            return {}
        try:
            return {key: base64.b64decode(value).decode().strip() for key, value in (secret.data or {}).items()}
        except (binascii.Error, UnicodeDecodeError):
            return {}


def _no_key(why: str, code: str, name: str) -> Refused:
    return Refused(
        f"the Secret {name} in {SYSTEM_NAMESPACE} is missing, or {why}",
        code=code,
        hint="docs/storage.md says what it holds",
        retryable=True,
    )
