"""The namespaces of an image build, with the real kernel: root inside, nothing visible outside, nothing left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from carmel.run import Command, SystemRunner, find_program
from carmel.storage.build import sandbox

_PROGRAM = """
import json, os, sys
from pathlib import Path
from carmel.storage.build import sandbox
place = Path(sys.argv[1])
sandbox.enter()
if not sandbox.runs_arm64():
    sandbox.run_arm64_by(Path(sys.argv[2]))
sandbox.mount("tmpfs", place, "tmpfs")
(place / "file").write_text("x")
os.chown(place / "file", 1000, 1000)
print(json.dumps({
    "pid": os.getpid(),
    "uid": os.geteuid(),
    "owner": (place / "file").stat().st_uid,
    "arm64": [path.name for path in Path("/proc/sys/fs/binfmt_misc").glob("*aarch64*")],
    "links": Path("/proc/net/dev").read_text().count(":"),
}))
"""


@pytest.fixture
def emulator() -> str:
    found = find_program("qemu-aarch64-static")
    return str(found) if found else "/none"


async def test_inside_is_root_and_outside_sees_nothing(tmp_path: Path, emulator: str) -> None:
    before = _outside(tmp_path)
    result = await SystemRunner().run(Command([Path(sys.executable), "-c", _PROGRAM, tmp_path, emulator]))
    seen = json.loads(result.text)
    assert (seen["pid"], seen["uid"], seen["owner"]) == (1, 0, 1000)
    assert seen["arm64"] or sandbox.runs_arm64()
    # The loopback interface alone.
    assert seen["links"] == 1
    assert _outside(tmp_path) == before


def _outside(place: Path) -> tuple[str, list[str], list[str]]:
    """The mounts, the registered formats and the files of the mount point, as everybody else sees them."""
    formats = Path("/proc/sys/fs/binfmt_misc")
    mounts = Path("/proc/self/mounts").read_text()
    return mounts, sorted(path.name for path in formats.glob("*")), [path.name for path in place.iterdir()]
