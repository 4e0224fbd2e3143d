"""Images that are not what they should be, and disks that do not fit."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.objects import condition, dig
from carmel.errors import NotFound
from carmel.units import MIB, TIB
from tests.daemon import Daemon, running_daemon
from tests.system.badinput.programs import Carmel
from tests.unit.storage.https_server import Site, serve

SECRET = "/etc/shadow"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site")) as served:
        yield served


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    # Open to the user without rights that reads from outside.
    with running_daemon() as running:
        running.stop()
        authority = running.root / "ca.pem"
        authority.write_bytes(site.certificate.read_bytes())
        running.environ |= {"SSL_CERT_FILE": str(authority), "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
        running.start()
        yield running
        assert "Traceback" not in running.log.read_text()


def made(path: Path, *words: str) -> Path:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True, timeout=30)
    return path


def with_backing_file(path: Path) -> Path:
    return made(path, "create", "-q", "-f", "qcow2", "-u", "-b", SECRET, "-F", "raw", str(path), "16M")


def with_data_file(path: Path) -> Path:
    stand_in = "x" * len(SECRET)
    options = f"data_file={stand_in},data_file_raw=on"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path.name, "16M"]
    subprocess.run(words, cwd=path.parent, check=True, capture_output=True, timeout=30)
    data = path.read_bytes()
    assert stand_in.encode() in data
    path.write_bytes(data.replace(stand_in.encode(), SECRET.encode()))
    return path


def with_huge_l1_table(path: Path) -> Path:
    made(path, "create", "-q", "-f", "qcow2", str(path), "16M")
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 36, 0x7FFF_FFFF)  # l1_size: QEMU, docs/interop/qcow2.txt, "Header"
    path.write_bytes(data)
    return path


def cut_off(path: Path) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes(os.urandom(4 * MIB))
    made(path, "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))
    os.truncate(path, path.stat().st_size // 2)
    return path


def of_a_disk_of_32_tib(path: Path) -> Path:
    return made(path, "create", "-q", "-f", "qcow2", str(path), "32T")


def vmdk_bomb(path: Path) -> Path:
    made(path, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicSparse", str(path), "16M")
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 12, 32 * TIB // 512)  # capacity: VMware, "Virtual Disk Format 5.0", SparseExtentHeader
    path.write_bytes(data)
    return path


def vmdk_descriptor(path: Path) -> Path:
    path.write_text(f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 32768 FLAT "{SECRET}" 0\n')
    return path


def web_page(path: Path) -> Path:
    path.write_text("<html><body>404 Not Found</body></html>")
    return path


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (with_backing_file, {"ImageHasBackingFile"}),
        (with_data_file, {"ImageHasDataFile"}),
        (with_huge_l1_table, {"ImageDamaged", "ImageTruncated"}),
        (cut_off, {"ImageTruncated", "ImageDamaged"}),
        (of_a_disk_of_32_tib, {"ImageTooLarge"}),
        (vmdk_bomb, {"ImageTooLarge", "ImageDamaged", "ImageTruncated"}),
        (vmdk_descriptor, {"ImageHasExtents"}),
        (web_page, {"UnknownImageFormat"}),
    ],
)
def test_a_bad_upload_is_refused_and_nothing_stays(
    carmel: Carmel, daemon: Daemon, tmp_path: Path, make: object, codes: set[str]
) -> None:
    assert callable(make)
    file = make(tmp_path / "disk")
    ended = carmel("image", "import", str(file), "--name", "bad", "-o", "json", status=5)
    assert ended.error["code"] in codes, ended.error
    assert ended.error["hint"]
    daemon.wait_gone("image", "bad")
    assert nothing_of_images(daemon)


def nothing_of_images(daemon: Daemon) -> bool:
    store = daemon.paths.default_datastore
    left = [str(one) for part in ("images", "tmp", "volumes") for one in (store / part).glob("*")]
    assert left == []
    return True


def test_a_file_that_is_not_there(carmel: Carmel, daemon: Daemon, tmp_path: Path) -> None:
    for file in (tmp_path / "no-such-file", tmp_path):
        assert carmel("image", "import", str(file), "--name", "bad", status=2).stderr.startswith("error: ")
    with pytest.raises(NotFound):
        daemon.get("image", "bad")


def test_a_wrong_digest_keeps_nothing(daemon: Daemon, site: Site) -> None:
    disk = bytes(510) + b"\x55\xaa" + bytes(MIB)
    url = site.publish("disk.img", disk)
    source = {"url": {"url": url, "checksum": "sha256:" + hashlib.sha256(b"something else").hexdigest()}}
    daemon.create("image", {"metadata": {"name": "wrong"}, "spec": {"source": source}})
    image = daemon.wait_for("image", "wrong", lambda one: dig(one, "status", "phase") == "Failed")
    error = image["status"]["error"]
    assert error["code"] == "ImageDigestMismatch", error
    assert error["hint"]
    assert hashlib.sha256(disk).hexdigest() in error["message"]
    assert nothing_of_images(daemon)
    daemon.delete("image", "wrong")
    daemon.wait_gone("image", "wrong")


def test_a_disk_larger_than_the_datastore(daemon: Daemon, carmel: Carmel) -> None:
    daemon.create("volume", {"metadata": {"name": "huge"}, "spec": {"size": "60Ti"}})
    volume = daemon.wait_for("volume", "huge", lambda one: dig(one, "status", "phase") == "Failed")
    assert volume["status"]["error"]["code"] == "VolumeTooLarge", volume["status"]
    assert volume["status"]["error"]["hint"]
    assert nothing_of_images(daemon)
    shown = carmel("describe", "volume", "huge").stdout
    assert volume["status"]["error"]["message"] in shown
    daemon.delete("volume", "huge")
    daemon.wait_gone("volume", "huge")


def test_an_image_in_use_stays_until_it_is_free(carmel: Carmel, daemon: Daemon, tmp_path: Path) -> None:
    raw = tmp_path / "disk"
    raw.write_bytes(bytes(510) + b"\x55\xaa" + bytes(MIB - 512))
    carmel("image", "import", str(raw), "--name", "base")
    daemon.create("volume", {"metadata": {"name": "root"}, "spec": {"imageRef": {"name": "base"}}})
    daemon.wait_for("volume", "root", lambda one: dig(one, "status", "phase") == "Ready")
    daemon.delete("image", "base")
    held = daemon.wait_for("image", "base", lambda one: bool(condition(one, "Deletable")))
    assert "root" in condition(held, "Deletable")["message"]
    daemon.delete("volume", "root")
    daemon.wait_gone("volume", "root")
    daemon.wait_gone("image", "base")
    assert nothing_of_images(daemon)


def test_an_error_is_json_when_asked_for(carmel: Carmel, tmp_path: Path) -> None:
    file = web_page(tmp_path / "disk")
    ended = carmel("image", "import", str(file), "--name", "bad", "-o", "json", status=5)
    assert json.loads(ended.stderr)["retryable"] is False
