"""A recording of this machine reads as the machine itself does."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.hardware.model import Hardware
from carmel.hardware.reader import read_hardware

_SCRIPT = Path(__file__).parents[3] / "scripts" / "record-machine"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sysfs")
def test_a_recording_is_the_machine(tmp_path: Path) -> None:
    kept = tmp_path / "machine.tar.gz"
    subprocess.run([_SCRIPT, kept], check=True, capture_output=True, timeout=100)
    with tarfile.open(kept) as archive:
        archive.extractall(tmp_path, filter="tar")
    assert steady(read_hardware(tmp_path / "machine")) == steady(read_hardware())


def steady(found: Hardware) -> Hardware:
    """Without what changes from one moment to the next."""
    nodes = (replace(node, free_memory_bytes=None, huge_pages=()) for node in found.nodes)
    return replace(found, nodes=tuple(nodes), huge_pages=())


def test_a_file_must_be_named() -> None:
    ended = subprocess.run([_SCRIPT], check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert "which file shall be written?" in ended.stderr
