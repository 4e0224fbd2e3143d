"""Checksum files as Debian, Ubuntu and the BSDs write them."""

from __future__ import annotations

import pytest

from carmel.errors import Refused
from carmel.storage.checksums import file_name, find_checksum

S256, S512 = "a" * 64, "b" * 128


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{S512}  disk.qcow2\n{'c' * 128}  other.qcow2\n", f"sha512:{S512}"),
        (f"{S256} *disk.qcow2\n", f"sha256:{S256}"),
        (f"{S256}  ./disk.qcow2", f"sha256:{S256}"),
        (f"SHA256 (disk.qcow2) = {S256.upper()}\n", f"sha256:{S256}"),
        (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{S256}  disk.qcow2\n{S256}  disk.qcow2\n",
            f"sha256:{S256}",
        ),
    ],
)
def test_the_sum_is_found(text: str, expected: str) -> None:
    assert find_checksum(text, "disk.qcow2") == expected


@pytest.mark.parametrize(
    "text",
    ["", f"{S256}  disk.qcow2.sig\n", f"{'a' * 63}  disk.qcow2\n", f"{S256}  disk.qcow2\n{'d' * 64}  disk.qcow2\n"],
)
def test_none_or_two_are_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        find_checksum(text, "disk.qcow2")
    assert caught.value.code == "ChecksumMissing"


def test_the_name_is_the_last_part_of_the_path() -> None:
    assert file_name("https://host/a/b%20c.img?x=/y.img#z") == "b c.img"
