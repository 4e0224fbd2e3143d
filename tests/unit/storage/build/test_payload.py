"""Carmel and its packages for an Arm host, with a pip that hands out wheels of these tests."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from carmel.errors import InternalError, Refused, Unavailable
from carmel.run import Command, ProgramFailed, Result, SystemRunner, find_program
from carmel.storage.build.context import BuildContext
from carmel.storage.build.lockfile import locked_requirements, select_runtime
from carmel.storage.build.payload import PREFIX, payload_inputs, write_payload
from carmel.storage.build.wheels import fetch_wheels, unpack_wheel

_ROOT = Path(__file__).parents[4]
_SOURCE, _LOCK_FILE = _ROOT / "src/carmel/paths.py", _ROOT / "requirements.lock"
_LOCK = """\
a==1.0 \\
    --hash=sha256:aa
    # via carmel (pyproject.toml)
b==2.0 ; python_version >= '3' \\
    --hash=sha256:bb \\
    --hash=sha256:bc
    # via
    #   a
    #   tool
c==3.0 \\
    --hash=sha256:cc
    # via b
tool==4.0 \\
    --hash=sha256:dd
    # via carmel (pyproject.toml:build)
"""


def wheel(files: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return written.getvalue()


@dataclass
class Pip:
    """A ``Runner`` that is pip; everything else is run for real."""

    packages: Mapping[str, bytes] = field(default_factory=dict)
    failure: str = ""
    asked: list[Command] = field(default_factory=list)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        if "pip" not in command.argv:
            return await SystemRunner().run(command, check=check, on_line=on_line)
        self.asked.append(command)
        if self.failure:
            raise ProgramFailed(command, Result(1, b"", self.failure.encode()))
        into = Path(command.argv[command.argv.index("--dest") + 1])
        for name, data in self.packages.items():
            (into / name).write_bytes(data)
        return Result(0, b"", b"")


def context(runner: Pip, cache: Path) -> BuildContext:
    return BuildContext(runner, cache, cache, lambda _percent, _message: None)


def test_only_what_runs_is_taken_from_the_lock() -> None:
    selected = select_runtime(_LOCK)
    assert [line.partition("==")[0] for line in selected.splitlines() if "==" in line] == ["a", "b", "c"]
    assert "python_version >= '3'" in selected
    assert selected.count("--hash=") == 4
    names = {line.partition("==")[0] for line in locked_requirements().splitlines() if "==" in line}
    assert {"pydantic", "pydantic-core", "cffi", "click", "uvicorn"} <= names
    assert not names & {"hatchling", "editables", "pytest", "packaging"}


def test_a_lock_that_names_nobody_is_refused() -> None:
    with pytest.raises(InternalError) as caught:
        select_runtime("a==1.0 \\\n    --hash=sha256:aa\n")
    assert caught.value.code == "LockFileDamaged"


async def test_writes_an_environment_that_needs_nothing_but_python(tmp_path: Path) -> None:
    files = {"thing/__init__.py": b"X = 1\n", "thing-1.dist-info/METADATA": b"", "thing-1.data/scripts/thing": b"#!"}
    pip = Pip({"thing-1-py3-none-any.whl": wheel(files)})
    tree = tmp_path / "tree"
    tree.mkdir()
    await write_payload(context(pip, tmp_path / "cache"), tree)
    site_packages = tree / "lib/python3.11/site-packages"
    assert (site_packages / "thing/__init__.py").read_bytes() == b"X = 1\n"
    assert not list(tree.rglob("thing-1.data"))
    # What runs is carmel as it is here, with what it reads at run time.
    assert (site_packages / "carmel/paths.py").read_bytes() == _SOURCE.read_bytes()
    assert (site_packages / "carmel/storage/build/micro_guest/init").is_file()
    assert (site_packages / "carmel/storage/build/requirements.lock").read_bytes() == _LOCK_FILE.read_bytes()
    assert (tree / "bin/python3").readlink() == Path("/usr/bin/python3.11")
    assert (tree / "bin/carmeld").read_text().startswith(f"#!{PREFIX}/bin/python3 -I\n")
    assert (tree / "bin/carmeld").stat().st_mode & stat.S_IXUSR


@pytest.mark.skipif(find_program("python3.11") is None, reason="byte code for Debian's Python needs that Python")
async def test_byte_code_is_believed_whatever_the_times_say(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    await write_payload(context(Pip(), tmp_path / "cache"), tree)
    codes = list(tree.rglob("carmel/__pycache__/paths.*.pyc"))
    # PEP 552: flags 0b01, hash-based and unchecked.
    assert int.from_bytes(codes[0].read_bytes()[4:8], "little") == 1
    assert f"{PREFIX}/lib/python3.11/site-packages/carmel/paths.py".encode() in codes[0].read_bytes()


async def test_asks_pip_for_arm_by_its_own_settings_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_SOME_SETTING", "mine")
    pip = Pip({"a-1-py3-none-any.whl": wheel({"a.py": b""})})
    first = await fetch_wheels(context(pip, tmp_path), "a==1", "3.11")
    assert [path.name for path in first] == ["a-1-py3-none-any.whl"]
    assert await fetch_wheels(context(pip, tmp_path), "a==1", "3.11") == first
    assert len(pip.asked) == 1
    assert pip.asked[0].env["PIP_SOME_SETTING"] == "mine"
    assert {"--require-hashes", "--no-deps", "--platform=manylinux_2_28_aarch64"} <= set(map(str, pip.asked[0].argv))
    await fetch_wheels(context(pip, tmp_path), "a==2", "3.11")
    assert len(pip.asked) == 2


@pytest.mark.parametrize(
    ("said", "kind", "code", "words"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM ...\n x", Refused, "PackageDamaged", "locked"),
        ("WARNING: y\nERROR: No matching distribution found for a==1", Unavailable, "PackagesUnavailable", "a==1"),
        ("Traceback", Unavailable, "PackagesUnavailable", "pip failed"),
    ],
)
async def test_a_pip_that_fails_leaves_nothing(
    tmp_path: Path, said: str, kind: type[Exception], code: str, words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await fetch_wheels(context(Pip(failure=said), tmp_path), "a==1", "3.11")
    assert getattr(caught.value, "code", None) == code
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_a_machine_without_pip_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Refused, match="no pip") as caught:
        await fetch_wheels(context(Pip(), tmp_path), "a==1", "3.11")
    assert caught.value.code == "ProgramMissing"


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "a/../../out.py", "a.data/purelib/../../out.py"])
def test_a_package_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    damaged = tmp_path / "a.whl"
    damaged.write_bytes(wheel({name: b"x"}))
    with pytest.raises(InternalError, match="it holds"):
        unpack_wheel(damaged, tmp_path / "into")
    assert list(tmp_path.iterdir()) == [damaged]


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "a.whl"
    damaged.write_bytes(b"not a zip archive")
    with pytest.raises(InternalError, match=r"a\.whl"):
        unpack_wheel(damaged, tmp_path / "into")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InternalError, match="symbolic link"):
        unpack_wheel(damaged, tmp_path / "into")


def test_the_key_follows_python() -> None:
    assert payload_inputs("3.11") == payload_inputs("3.11")
    assert payload_inputs("3.11") != payload_inputs("3.12")
