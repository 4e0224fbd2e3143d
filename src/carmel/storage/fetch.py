"""Downloads one verified file: ``python -m carmel.storage.fetch``, in a limited child process.

In its working directory it writes ``part`` and beside it ``part.json``, which says of what version of the file that
is a part; a later call goes on there if the server still has that version (RFC 9110, "Range Requests"). Its sum is
taken while it comes. Whatever does not have the right sum is removed.
"""

from __future__ import annotations

import contextlib

# Looked up by name at the first connection, when root is given up already and Python's own files may be out of reach.
import encodings.idna  # noqa: F401
import errno
import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from carmel.errors import CarmelError, Refused, TooLarge, Unavailable
from carmel.storage.checksums import MAX_BYTES, Hash, file_name, find_checksum, new_hash
from carmel.storage.child import main, say
from carmel.storage.files import disk_full
from carmel.storage.https import HttpsOnly, explained

PART = Path("part")
STATE = Path("part.json")

_BLOCK = 256 * 1024
_PROGRESS_SECONDS = 1.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Request:
    """What to fetch. Exactly one of the checksums is given. ``least_bytes_per_second`` over each ``stall_seconds``;
    ``tries`` is how many failures in a row are taken, ``pause_seconds`` the wait after the first of them.
    """

    url: str
    checksum: str | None
    checksum_url: str | None
    max_bytes: int
    reserve_bytes: int
    stall_seconds: float = 30.0
    least_bytes_per_second: int = 256
    tries: int = 4
    pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class _Version:
    """Which version of the file ``part`` is a part of. ``validator`` is a strong ETag, or a date."""

    url: str
    validator: str
    total: int | None


class _Changed(Exception):
    """The server has another version by now: begin anew."""


def fetch(request: Request) -> str:
    """Leave the whole file as ``part``; answers its checksum."""
    https = HttpsOnly(request.stall_seconds)
    expected = _expected(https, request)
    while True:
        digest = _whole(https, request, expected)
        if digest == expected:
            return expected
        _discard()
        # A vendor who published anew while we read has another sum by now.
        newer = _expected(https, request)
        if newer == expected:
            raise Refused(
                f"the sum of what came is {digest}, but it should be {expected}",
                code="ImageDigestMismatch",
                hint="the file was damaged on the way, or is not the vendor's: nothing of it was kept",
            )
        expected = newer


def _expected(https: HttpsOnly, request: Request) -> str:
    if request.checksum is not None:
        return request.checksum
    assert request.checksum_url is not None
    url = request.checksum_url
    with https.get(url) as response, explained(url):
        text = response.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise TooLarge(f"the checksum file {url[:500]} is larger than {MAX_BYTES} bytes", code="ChecksumMissing")
    return find_checksum(text.decode("utf-8", "replace"), file_name(request.url))


def _whole(https: HttpsOnly, request: Request, expected: str) -> str:
    """Download to the end, with as many requests as that takes while there is progress."""
    failures = 0
    while True:
        before = _size()
        try:
            return _go_on(https, request, expected)
        except _Changed:
            _discard()
            failures += 1
            error: CarmelError = Unavailable(
                f"{request.url[:500]} changed again and again while it was read", code="SourceUnavailable"
            )
        except CarmelError as exc:
            if exc.code in ("DiskFull", "DownloadTooLarge"):
                # What could not be finished would only keep the disk full.
                _discard()
            if not exc.retryable or exc.code == "DiskFull":
                raise
            error = exc
            failures = 1 if _size() > before else failures + 1
        if failures >= request.tries:
            raise error
        time.sleep(request.pause_seconds * 2 ** (failures - 1))


def _go_on(https: HttpsOnly, request: Request, expected: str) -> str:
    version, have = _kept(request.url)
    headers = {} if version is None else {"Range": f"bytes={have}-", "If-Range": version.validator}
    hasher = new_hash(expected)
    if version is not None and version.total == have:
        _hash_file(hasher)
        return _digest(expected, hasher)
    with https.get(request.url, headers) as response, explained(request.url):
        total: int | None
        if response.status == 206 and version is not None:
            total = _resumed_total(response, version, have)
            _hash_file(hasher)
        else:
            have, total = 0, _new_total(response)
            _discard()
            _remember(request.url, response, total)
        _require_room(request, have, total)
        with _explained_disk(), PART.open("ab") as file:
            have = _receive(response, file, hasher, request, have, total)
    if total is not None and have != total:
        raise Unavailable(
            f"the connection ended after {have} of {total} bytes", code="SourceUnavailable", retryable=True
        )
    return _digest(expected, hasher)


def _receive(
    response: http.client.HTTPResponse, file: BinaryIO, hasher: Hash, request: Request, have: int, total: int | None
) -> int:
    told = window = time.monotonic()
    window_bytes = 0
    while block := response.read1(_BLOCK):
        have += len(block)
        if have > request.max_bytes or (total is not None and have > total):
            raise _too_large(request)
        file.write(block)
        hasher.update(block)
        now = time.monotonic()
        window_bytes += len(block)
        if now - window >= request.stall_seconds:
            if window_bytes < request.least_bytes_per_second * (now - window):
                raise TimeoutError
            window, window_bytes = now, 0
        if now - told >= _PROGRESS_SECONDS:
            say({"progress": [have, total]})
            told = now
    file.flush()
    os.fsync(file.fileno())
    return have


# -- what is kept between calls -----------------------------------------------------------------------------------
def _kept(url: str) -> tuple[_Version | None, int]:
    """The version of which there is a part, and how many bytes of it."""
    size = _size()
    try:
        version = _Version(**json.loads(STATE.read_text()))
    except (OSError, ValueError, TypeError):
        return None, 0
    return (version, size) if size > 0 and version.url == url else (None, 0)


def _remember(url: str, response: http.client.HTTPResponse, total: int | None) -> None:
    tag = response.headers.get("ETag", "")
    # A weak tag or a date younger than a second does not name one version (RFC 9110, "If-Range").
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if validator and response.headers.get("Accept-Ranges", "bytes") != "none":
        STATE.write_text(json.dumps(asdict(_Version(url, validator, total))))


def _discard() -> None:
    for path in (STATE, PART):
        path.unlink(missing_ok=True)


def _size() -> int:
    try:
        return PART.stat().st_size
    except FileNotFoundError:
        return 0


def _hash_file(hasher: Hash) -> None:
    with PART.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)


def _digest(expected: str, hasher: Hash) -> str:
    return f"{expected.partition(':')[0]}:{hasher.hexdigest()}"


# -- what the server says -----------------------------------------------------------------------------------------
def _resumed_total(response: http.client.HTTPResponse, version: _Version, have: int) -> int:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have or (version.total is not None and int(match[3]) != version.total):
        raise _Changed
    tag = response.headers.get("ETag")
    if tag is not None and version.validator.startswith('"') and tag != version.validator:
        raise _Changed
    return int(match[3])


def _new_total(response: http.client.HTTPResponse) -> int | None:
    if response.status != 200:
        raise _Changed
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused("the server sends the file in another encoding than it has", code="SourceEncoded")
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 19 else None


def _require_room(request: Request, have: int, total: int | None) -> None:
    if total is None:
        return
    if total > request.max_bytes:
        raise _too_large(request)
    found = os.statvfs(".")
    if total - have + request.reserve_bytes > found.f_bavail * found.f_frsize:
        raise disk_full()


def _too_large(request: Request) -> TooLarge:
    return TooLarge(
        f"{request.url[:500]} has more than the {request.max_bytes} bytes that are taken",
        code="DownloadTooLarge",
        hint="use a larger datastore",
    )


@contextlib.contextmanager
def _explained_disk() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full() from exc
        if exc.errno == errno.EFBIG:
            raise TooLarge("the file is larger than is taken", code="DownloadTooLarge") from exc
        raise


def _work(request: dict[str, Any]) -> dict[str, Any]:
    return {"checksum": fetch(Request(**{key: value for key, value in request.items() if key != "user"}))}


if __name__ == "__main__":
    main(_work)
