"""Secrets that storage needs: they lie in ``carmel-system``, which only administrators of the NIC read."""

from __future__ import annotations

import re

from carmel.controllers.psk import SYSTEM_NAMESPACE, psk_of, secret_words
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Refused
from carmel.hypervisor.psk import Psk
from carmel.resources.core import SECRET, Secret
from carmel.smartnic.nvme.fabrics import ChapKeys

KEY_OF_EXPORTS = "nvme-export"
"""Keys ``username`` and ``psk`` (hexadecimal, 32 bytes or more): who may read and write what is exported."""


class ExportKeys:
    """Reads them afresh each time: a Secret that was changed counts at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._secrets: Resources[Secret] = runtime.resources(SECRET, Secret)

    async def psk(self) -> Psk:
        """Raises ``Refused`` (``NoExportKey``)."""
        try:
            return psk_of(await self._secrets.find(Key(SYSTEM_NAMESPACE, KEY_OF_EXPORTS)))
        except ValueError as exc:
            raise _no_key(KEY_OF_EXPORTS, str(exc), "NoExportKey") from exc

    async def chap(self, name: str) -> ChapKeys:
        """Raises ``Refused`` (``NoAuthKey``)."""
        words = secret_words(await self._secrets.find(Key(SYSTEM_NAMESPACE, name))) or {}
        host, controller = words.get("dhchap", ""), words.get("dhchapController")
        for key in (host, *([controller] if controller is not None else [])):
            # No comma may end the option that it stands in.
            if not re.fullmatch(r"DHHC-1:0[0-3]:[A-Za-z0-9+/=]+:", key):
                raise _no_key(name, "has no keys of the form DHHC-1:...", "NoAuthKey")
        return ChapKeys(host, controller)


def _no_key(name: str, why: str, code: str) -> Refused:
    return Refused(
        f"the Secret {name} in {SYSTEM_NAMESPACE} {why}",
        code=code,
        hint="docs/storage.md says what it holds",
        retryable=True,
    )
