"""Where a NIC's API is and what the host shows it: from a SmartNIC and its Secret to an endpoint."""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping

from carmel.client.connections import load_pair
from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import Refused

KEYS = ("ca.crt", "tls.crt", "tls.key")
_HINT = "on the NIC `carmel smartnic invite --host NAME` makes what belongs there"
_EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""


def endpoint_of(address: str, secret: str, data: Mapping[str, str] | None) -> HttpsEndpoint:
    """``address`` is ``spec.address``; ``data`` are those of the Secret named ``secret``, base64 as it has them, or
    ``None``: it is not there. Raises ``Refused`` (``WaitingForSecret``, ``CredentialsInvalid``)."""
    if data is None:
        raise Refused(f"there is no Secret {secret} in carmel-system", code="WaitingForSecret", hint=_HINT)
    missing = [key for key in KEYS if not data.get(key)]
    if missing:
        raise Refused(
            f"Secret {secret} in carmel-system lacks {', '.join(missing)}", code="WaitingForSecret", hint=_HINT
        )
    try:
        authority, certificate, key = (base64.b64decode(data[key], validate=True).decode("ascii") for key in KEYS)
    except (binascii.Error, ValueError):
        raise Refused(
            f"Secret {secret} in carmel-system is not PEM text", code="CredentialsInvalid", hint=_HINT
        ) from None
    host, port = split_address(address)
    return HttpsEndpoint(host=host, port=port, ca=authority, certificate=certificate, key=key)


def split_address(address: str) -> tuple[str, int]:
    """``192.168.100.2:17443`` or ``[fd00::2]:17443``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def has_expired(endpoint: HttpsEndpoint) -> bool:
    """Whether the certificate that this host shows has come to its end, by this host's clock.

    A server that does not take it may close the connection before its reason arrives, so it is asked here, in a
    handshake with ourselves in which the one side knows the NIC's authority.
    """
    if endpoint.certificate is None or endpoint.key is None:
        return False
    try:
        judge = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        judge.verify_mode = ssl.CERT_REQUIRED
        judge.load_verify_locations(cadata=endpoint.ca)
        shown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
        for context in (judge, shown):
            load_pair(context, endpoint.certificate, endpoint.key)
    except (ssl.SSLError, ValueError):
        return False
    return _verdict(judge, shown) == _EXPIRED


def _verdict(judge: ssl.SSLContext, shown: ssl.SSLContext) -> int:
    """OpenSSL's number for what is wrong with the certificate; 0: nothing."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = judge.wrap_bio(up, down, server_side=True)
    client = shown.wrap_bio(down, up)
    for side in (client, server) * 4:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_code
        except ssl.SSLError:
            break
    return 0
