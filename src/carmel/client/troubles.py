"""What it means that a server could not be talked to, in sentences."""

from __future__ import annotations

import ssl

from carmel.client.endpoint import Endpoint, HttpsEndpoint
from carmel.errors import CarmelError, Forbidden, Refused, TimedOut, Unavailable

_EXPIRED = 10
_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH (X509_STORE_CTX_get_error(3))."""
_ALERTS = frozenset(
    {
        "UNKNOWN_CA",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "CERTIFICATE_REQUIRED",
        "UNSUPPORTED_CERTIFICATE",
        "ACCESS_DENIED",
        "HANDSHAKE_FAILURE",
    }
)
"""What a server says of a client's certificate that it does not take (RFC 8446, 6.2)."""


def connection_error(endpoint: Endpoint, exc: Exception) -> CarmelError:
    """What it means that ``endpoint`` could not be talked to."""
    if isinstance(exc, TimeoutError):
        return TimedOut(f"{endpoint} did not answer in time", code="ServerTimeout")
    if isinstance(exc, ssl.SSLError) and (told := _tls_error(endpoint, exc)) is not None:
        return told
    if isinstance(endpoint, HttpsEndpoint):
        return Unavailable(f"{endpoint} cannot be reached: {exc}", code="ServerUnreachable")
    if isinstance(exc, PermissionError):
        return Forbidden(
            f"you may not open {endpoint}",
            code="SocketForbidden",
            hint=f"use sudo, or join the group that owns the socket (ls -l {endpoint}) and log in again",
        )
    if isinstance(exc, FileNotFoundError | ConnectionRefusedError):
        return Unavailable(
            f"the host's daemon is not running: nobody listens on {endpoint}",
            code="DaemonNotRunning",
            hint="start it with `systemctl start carmeld`, or in a terminal with `carmeld`",
        )
    said = str(exc) or type(exc).__name__
    return Unavailable(f"the connection to {endpoint} was lost: {said}", code="ConnectionLost")


def _tls_error(endpoint: Endpoint, exc: ssl.SSLError) -> CarmelError | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        code = {
            _EXPIRED: "CertificateExpired",
            **dict.fromkeys(_OTHER_NAME, "CertificateOfAnother"),
        }.get(exc.verify_code, "CertificateNotTrusted")
        return Refused(
            f"the certificate of {endpoint} is not trusted: {exc.verify_message}",
            code=code,
            hint="`carmel kubeconfig` on that host prints a configuration with the right authority",
        )
    alert = (exc.reason or "").partition("_ALERT_")[2]
    if alert not in _ALERTS:
        return None
    words = alert.lower().replace("_", " ")
    return Refused(
        f"{endpoint} does not take the client certificate that it was shown: {words}",
        code="ClientCertificateExpired" if alert == "CERTIFICATE_EXPIRED" else "ClientCertificateRefused",
        hint="have a new one made there",
    )
