"""The seed: a readable ISO image whose meta-data nothing can break out of."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.storage.cloudinit import Seed, seed_image, write_seed
from carmel.storage.iso9660 import SECTOR, iso_image

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN me@laptop"


def files(image: bytes, descriptor: int = 17) -> dict[str, bytes]:
    """What a reader finds by the volume descriptor in that sector (17: Joliet, 16: plain)."""
    encoding = "utf-16-be" if descriptor == 17 else "ascii"
    root = image[descriptor * SECTOR + 156 :]
    (start,) = struct.unpack_from("<I", root, 2)
    directory, found = image[start * SECTOR : (start + 1) * SECTOR], {}
    position = 0
    while (length := directory[position]) > 0:
        record = directory[position : position + length]
        sector, _, size, _ = struct.unpack_from("<I4sI4s", record, 2)
        name = record[33 : 33 + record[32]]
        if len(name) > 1:
            found[name.decode(encoding).split(";")[0]] = image[sector * SECTOR : sector * SECTOR + size]
        position += length
    return found


def test_the_seed_holds_what_it_was_given() -> None:
    image = seed_image(Seed("i-1", "web", b"#!/bin/sh\ntrue\n", b"version: 2\n", [KEY]))
    found = files(image)
    assert found["user-data"] == b"#!/bin/sh\ntrue\n"
    assert found["network-config"] == b"version: 2\n"
    assert json.loads(found["meta-data"]) == {"instance-id": "i-1", "local-hostname": "web", "public-keys": [KEY]}
    assert set(files(image, 16)) == {"META-DATA.", "NETWORK-CONFIG.", "USER-DATA."}
    assert image[16 * SECTOR + 40 :][:32].strip() == b"cidata"
    assert len(image) == SECTOR * struct.unpack_from("<I", image, 16 * SECTOR + 80)[0]


def test_a_seed_without_user_data_is_still_one() -> None:
    assert files(seed_image(Seed("i-1", "web")))["user-data"].startswith(b"#cloud-config")


def test_large_and_empty_files() -> None:
    data = {"a": b"", "b": bytes(range(256)) * 100, "c.txt": b"x" * SECTOR}
    assert files(iso_image("x", data)) == data


@pytest.mark.parametrize(
    ("seed", "code"),
    [
        (Seed("i", "h", b"packages: [vim]\n"), "BadUserData"),
        (Seed("i", "h", b"#" * 2_000_000), "BadUserData"),
        (Seed("i", "h", None, b"#" * 100_000), "BadNetworkData"),
        (Seed("i", "h", None, None, ["ssh-ed25519 AAAA\nssh-rsa BBBB"]), "BadSshKey"),
        (Seed("i", "h", None, None, ["nonsense"]), "BadSshKey"),
    ],
)
def test_what_cannot_be_used(seed: Seed, code: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        write_seed(seed, tmp_path / "cidata.iso")
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_whole_and_for_us_alone(tmp_path: Path) -> None:
    place = tmp_path / "cidata.iso"
    place.write_bytes(b"old")
    write_seed(Seed("i-1", "web", None, None, [KEY]), place)
    assert files(place.read_bytes())
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["cidata.iso"]
