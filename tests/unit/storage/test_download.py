"""Downloads from a local HTTPS server, by the real child process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from carmel.errors import CarmelError
from carmel.resources.image import UrlSource
from carmel.run import SystemRunner
from carmel.storage.child import Child
from carmel.storage.download import Downloaded, download
from carmel.storage.fetch import Request, fetch
from carmel.units import MIB
from tests.unit.storage.https_server import Handler, Site, serve

DATA = bytes(range(256)) * 4096


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as served:
        monkeypatch.setenv("SSL_CERT_FILE", str(served.certificate))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield served


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "download"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def request(site: Site, url: str, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "checksum": None,
        "checksum_url": site.checksum_url,
        "max_bytes": 64 * MIB,
        "reserve_bytes": 0,
        "stall_seconds": 0.3,
        "tries": 3,
        "pause_seconds": 0.01,
    }
    return Request(url=url, **{**values, **changes})


def code_of(site: Site, url: str, **changes: Any) -> str:
    with pytest.raises(CarmelError) as caught:
        fetch(request(site, url, **changes))
    return caught.value.code


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_the_child_fetches_and_verifies(site: Site, folder: Path) -> None:
    source = UrlSource(url=site.publish("disk.img", DATA), checksum_url=site.checksum_url)
    got = await download(Child(SystemRunner()), source, folder, max_bytes=64 * MIB, on_bytes=lambda *_: None)
    assert got == Downloaded(folder / "part", f"sha256:{hashlib.sha256(DATA).hexdigest()}")
    assert got.path.read_bytes() == DATA


async def test_the_childs_error_comes_through(site: Site, folder: Path) -> None:
    source = UrlSource(url=f"{site.url}/missing.img", checksum=f"sha256:{'0' * 64}")
    with pytest.raises(CarmelError) as caught:
        await download(Child(SystemRunner()), source, folder, max_bytes=MIB, on_bytes=lambda *_: None)
    assert caught.value.code == "SourceNotFound"
    assert not caught.value.retryable


def test_a_cut_connection_is_resumed_where_it_ended(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    site.cut_after["/disk.img"] = 300_000
    fetch(request(site, url))
    assert (folder / "part").read_bytes() == DATA
    ranges = [header for path, header in site.requests if path == "/disk.img"]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_a_later_call_goes_on_where_a_killed_one_was(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    site.cut_after["/disk.img"] = 300_000
    with pytest.raises(CarmelError):
        fetch(request(site, url, tries=1))
    assert (folder / "part").stat().st_size > 0
    fetch(request(site, url))
    assert site.requests[-1][1] is not None
    assert (folder / "part").read_bytes() == DATA


def test_a_file_that_changed_in_between_is_begun_anew(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    site.cut_after["/disk.img"] = 300_000
    with pytest.raises(CarmelError):
        fetch(request(site, url, tries=1))
    newer = DATA[::-1]
    site.publish("disk.img", newer)
    assert fetch(request(site, url)) == f"sha256:{hashlib.sha256(newer).hexdigest()}"
    assert (folder / "part").read_bytes() == newer


def test_a_wrong_sum_keeps_nothing(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    site.files["/disk.img"] = DATA[:-1] + b"x"
    assert code_of(site, url) == "ImageDigestMismatch"
    assert left(folder) == []


def test_a_sum_that_is_given(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    checksum = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    assert fetch(request(site, url, checksum=checksum, checksum_url=None)) == checksum


def test_a_checksum_file_that_does_not_name_the_image(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    site.files["/SHA256SUMS"] = b"0" * 64 + b"  other.img\n"
    assert code_of(site, url) == "ChecksumMissing"


def test_no_redirect_away_from_https(site: Site, folder: Path) -> None:
    def elsewhere(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1/disk.img")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.publish("disk.img", DATA)
    site.answers["/moved"] = elsewhere
    checksum = f"sha256:{'0' * 64}"
    assert code_of(site, f"{site.url}/moved", checksum=checksum, checksum_url=None) == "InsecureRedirect"


def test_a_redirect_within_https_is_followed(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)

    def elsewhere(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.answers["/moved"] = elsewhere
    checksum = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    fetch(request(site, f"{site.url}/moved", checksum=checksum, checksum_url=None))
    assert (folder / "part").read_bytes() == DATA


def test_a_body_without_end_is_cut_off(site: Site, folder: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(65536))

    site.publish("disk.img", DATA)
    site.answers["/disk.img"] = endless
    assert code_of(site, f"{site.url}/disk.img", max_bytes=MIB) == "DownloadTooLarge"
    assert left(folder) == []


def test_what_is_announced_as_too_large_is_not_begun(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    assert code_of(site, url, max_bytes=len(DATA) - 1) == "DownloadTooLarge"
    assert left(folder) == []


def test_a_disk_without_room_is_not_filled(site: Site, folder: Path) -> None:
    url = site.publish("disk.img", DATA)
    blocks = len(DATA) // 4096
    with mock.patch("os.statvfs", return_value=mock.Mock(f_bavail=blocks + 1, f_frsize=4096)):
        assert code_of(site, url, reserve_bytes=4097) == "DiskFull"
        assert left(folder) == []
        fetch(request(site, url, reserve_bytes=4096))
    assert left(folder) != []


def test_a_server_that_falls_silent(site: Site, folder: Path) -> None:
    def silent(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:1000])
        site.released.wait()

    site.publish("disk.img", DATA)
    site.answers["/disk.img"] = silent
    assert code_of(site, f"{site.url}/disk.img", tries=1) == "SourceUnavailable"


def test_a_server_that_trickles(site: Site, folder: Path) -> None:
    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        while not site.released.wait(0.02):
            handler.wfile.write(b"x")

    site.publish("disk.img", DATA)
    site.answers["/disk.img"] = trickle
    assert code_of(site, f"{site.url}/disk.img", tries=1) == "SourceUnavailable"


def test_a_server_nobody_vouches_for(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = site.publish("disk.img", DATA)
    monkeypatch.delenv("SSL_CERT_FILE")
    assert code_of(site, url) == "CertificateInvalid"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "SourceForbidden"), (410, "SourceNotFound"), (503, "SourceUnavailable")]
)
def test_what_statuses_mean(site: Site, folder: Path, status: int, code: str) -> None:
    site.publish("disk.img", DATA)
    site.answers["/disk.img"] = lambda handler: handler.send_error(status)
    assert code_of(site, f"{site.url}/disk.img") == code


def test_nobody_listens(site: Site, folder: Path) -> None:
    checksum = f"sha256:{'0' * 64}"
    assert code_of(site, "https://127.0.0.1:9/disk.img", checksum=checksum, checksum_url=None) == "SourceUnavailable"
