"""The key of an NBD server and its clients, out of a Secret: ``username``, and ``psk`` in hexadecimal digits."""

from __future__ import annotations

import base64
import binascii
import re

from carmel.hypervisor.psk import Psk
from carmel.resources.core import Secret

SYSTEM_NAMESPACE = "carmel-system"
"""Where such Secrets lie: only administrators of the whole machine read there."""
LEAST_BYTES = 32


def psk_of(secret: Secret | None) -> Psk:
    """Raises ``ValueError`` with what is wrong, as it goes on after the Secret's name."""
    words = secret_words(secret)
    if words is None:
        raise ValueError("is not there, or is no text")
    username, key = words.get("username", ""), words.get("psk", "")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", username):
        raise ValueError("has no username of letters, digits, '.', '_' and '-'")
    if not re.fullmatch(r"([0-9A-Fa-f]{2})+", key) or len(key) < 2 * LEAST_BYTES:
        raise ValueError(f"has no psk of {LEAST_BYTES} bytes or more in hexadecimal digits")
    return Psk(username, key)


def secret_words(secret: Secret | None) -> dict[str, str] | None:
    """Its data as text; ``None``: it is not there, or is none."""
    try:
        data = None if secret is None else secret.data or {}
        return None if data is None else {key: base64.b64decode(value).decode().strip() for key, value in data.items()}
    except (binascii.Error, UnicodeDecodeError):
        return None
