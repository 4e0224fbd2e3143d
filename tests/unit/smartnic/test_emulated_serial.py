"""The emulated NIC has a serial number whatever its VM was started by."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.hardware.sysroot import Sysroot
from carmel.smartnic.models.emulated import EmulatedNic

_DMI, _ID = "sys/class/dmi/id/product_serial", "etc/machine-id"


@pytest.mark.parametrize(
    ("files", "serial"),
    [
        ({_DMI: "MT2042\n", _ID: "0fb3468d7fa3\n"}, "MT2042"),
        ({_ID: "0fb3468d7fa3\n"}, "0fb3468d7fa3"),
        ({}, None),
    ],
    ids=["firmware", "no firmware", "nothing"],
)
def test_its_firmware_or_else_the_machine_has_one(tmp_path: Path, files: dict[str, str], serial: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert EmulatedNic(Sysroot(tmp_path)).serial == serial
