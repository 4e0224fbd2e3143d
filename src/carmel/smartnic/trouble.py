"""Why a NIC cannot be talked to, in sentences that name it."""

from __future__ import annotations

from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import CarmelError, Forbidden, Refused, Unauthorized, Unavailable
from carmel.smartnic.credentials import has_expired

_AGAIN = "on the NIC `carmel smartnic invite --host NAME` makes new credentials for the host: put them into its Secret"
_NEW_AUTHORITY = "if its credentials were made anew, invite the host anew; if not, this is another machine"


def told(name: str, endpoint: HttpsEndpoint, error: CarmelError) -> CarmelError:
    """The same of the NIC ``name``. What is not about the connection stays as it is."""
    where = f"SmartNIC {name} ({endpoint.host}:{endpoint.port})"
    match error.code:
        case "CertificateExpired":
            return Refused(
                f"the certificate that {where} shows has expired",
                code="NICCertificateExpired",
                hint="its daemon renews it by itself: look at that, and at this host's clock",
            )
        case "CertificateNotTrusted":
            return Refused(
                f"{where} shows a certificate that is not of the authority in this host's credentials",
                code="NICNotTrusted",
                hint=_NEW_AUTHORITY,
            )
        case "CertificateOfAnother":
            return Refused(
                f"{where} shows a certificate for another address",
                code="NICNotTrusted",
                hint="spec.address must be the address that the NIC's daemon listens on",
            )
        case "ClientCertificateExpired":
            return expired(where)
        case "ClientCertificateRefused":
            return refused(where)
        case "ServerUnreachable" | "ConnectionLost" | "ServerTimeout":
            if has_expired(endpoint):
                return expired(where)
            return Unavailable(
                f"{where} cannot be reached: {_reason(error)}",
                code="NICUnreachable",
                hint="VMs that use its functions run on; look at the NIC and at the interface that leads to it",
            )
    if isinstance(error, Unauthorized):
        return refused(where)
    if isinstance(error, Forbidden):
        return Refused(
            f"{where} does not let this host do that: {error.message}",
            code="NotTrustedByNIC",
            hint="the NIC's administrators do it (`carmel smartnic sync`), or set its spec.trust to Full",
        )
    return error


def expired(where: str) -> Refused:
    return Refused(
        f"the certificate by which {where} knows this host has expired", code="HostCertificateExpired", hint=_AGAIN
    )


def refused(where: str) -> Refused:
    return Refused(
        f"{where} does not know this host by the certificate in its Secret", code="HostNotKnown", hint=_AGAIN
    )


def _reason(error: CarmelError) -> str:
    if error.code == "ServerTimeout":
        return "it does not answer"
    cause = error.__cause__
    said = getattr(cause, "strerror", None) or str(cause or error.message)
    return said.rstrip(".")
