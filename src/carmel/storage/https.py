"""HTTPS and nothing else: requests for downloads, with what servers and networks do put into errors of ours.

Certificates are verified by the machine's own authorities (``SSL_CERT_FILE`` adds to them, as OpenSSL has it), and
proxies are those of the environment. A redirect may lead elsewhere, but never away from HTTPS.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import IO
from urllib.error import HTTPError, URLError

from carmel.errors import CarmelError, Refused, Unavailable

MAX_REDIRECTS = 10
_AGENT = "carmel (image download)"
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpsOnly:
    """Opens URLs. ``stall_seconds`` is the longest silence of a server, in every step."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._opener = urllib.request.OpenerDirector()
        # Not build_opener: its default handlers speak http, ftp and file as well.
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
        ):
            self._opener.add_handler(handler)

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
        """The answer to a GET with a status of 2xx or 416. Raises ``Unavailable`` (``SourceUnavailable``) for what may
        pass, ``Refused`` (``SourceNotFound``, ``SourceForbidden``, ``CertificateInvalid``, ``InsecureRedirect``).
        """
        require_https(url)
        request = urllib.request.Request(  # noqa: S310 - https only, see above
            url, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
        )
        with explained(url):
            response = self._opener.open(request, timeout=self._stall_seconds)
        # The opener knows no handler for anything else.
        assert isinstance(response, http.client.HTTPResponse)
        with response:
            yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            require_https(newurl)
        except Refused:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise Refused(
            f"{url[:200]!r} is not an https address",
            code="InsecureRedirect",
            hint="images are fetched over https only, also after redirects",
        )


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as exc:
        with exc:
            raise _by_status(url, exc.code) from exc
    except URLError as exc:
        raise _by_cause(url, exc.reason) from exc
    except (http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as exc:
        raise _by_cause(url, exc) from exc


def _by_status(url: str, status: int) -> CarmelError:
    if status in _TEMPORARY:
        return _unavailable(url, f"answered with status {status}")
    if status in (401, 403):
        return Refused(f"{url[:500]} may not be read from here (status {status})", code="SourceForbidden")
    return Refused(
        f"{url[:500]} is not there (status {status})",
        code="SourceNotFound",
        hint="look at the address: vendors move old releases",
    )


def _by_cause(url: str, cause: object) -> CarmelError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(
            f"the server of {url[:500]} could not prove who it is: {cause.verify_message}",
            code="CertificateInvalid",
            hint="is this machine's clock right, and are its certificate authorities there (ca-certificates)?",
        )
    if isinstance(cause, TimeoutError):
        return _unavailable(url, "said nothing for too long")
    return _unavailable(url, f"could not be reached: {str(cause)[:300] or type(cause).__name__}")


def _unavailable(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"{url[:500]} {why}",
        code="SourceUnavailable",
        hint="look at this machine's network and proxy settings; it is tried again by itself",
    )
