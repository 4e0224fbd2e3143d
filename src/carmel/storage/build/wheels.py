"""Python packages for another machine: pip fetches their wheels, and they are unpacked as an installer would.

pip is asked for exactly the locked versions and files (``--require-hashes``), built for 64-bit Arm Linux, by the
settings it has on this machine. Sources: the binary distribution format (packaging.python.org, "Binary distribution
format": a zip archive whose ``NAME.data/purelib`` and ``platlib`` go where the rest goes), PEP 600 (``manylinux_2_N``:
runs with glibc 2.N and newer).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from carmel.errors import CarmelError, InternalError, Refused, TimedOut, Unavailable
from carmel.run import Command, Limits, ProgramFailed
from carmel.storage.build.context import BuildContext
from carmel.storage.build.files import in_thread, locked
from carmel.units import MIB

# Debian 12 has glibc 2.36; no wheel for Arm is older than manylinux2014, which is 2.17.
_PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)), "manylinux2014_aarch64")
_MAX_FILES = 20_000
_MAX_BYTES = 512 * MIB


async def fetch_wheels(context: BuildContext, requirements: str, python: str) -> list[Path]:
    """The wheels of ``requirements`` (text in pip's format, with hashes) for Python ``python`` (``3.11``) on aarch64.

    They are kept in the build cache: equal requirements are fetched once. Raises ``Refused`` (``ProgramMissing``
    without pip, ``PackageDamaged`` for a file that is not the locked one) and ``Unavailable``
    (``PackagesUnavailable``).
    """
    digest = hashlib.sha256(f"{python}\n{requirements}".encode()).hexdigest()[:32]
    place = context.cache / "wheels" / digest
    async with locked(context.cache / "locks" / f"wheels-{digest}"):
        if not place.is_dir():
            await _fetch(context, requirements, python, place)
    return sorted(place.glob("*.whl"))


def unpack_wheel(wheel: Path, into: Path) -> None:
    """Put the modules of ``wheel`` into the directory ``into``, without its scripts. Blocking.

    Raises ``InternalError`` (``PackageDamaged``) for an archive that is none, names places outside or is too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_BYTES:
                raise _damaged(wheel, "it is larger than any package we need")
            for member in members:
                path = _place(wheel, member)
                if path is not None:
                    target = into / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as reader, target.open("xb") as writer:
                        shutil.copyfileobj(reader, writer)
    except (zipfile.BadZipFile, NotImplementedError, FileExistsError, EOFError) as exc:
        raise _damaged(wheel, str(exc)) from exc


def _place(wheel: Path, member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member goes, relative to site-packages; ``None`` for what a host does not need."""
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise _damaged(wheel, f"it holds {member.filename!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _damaged(wheel, f"{member.filename!r} is a symbolic link")
    if path.parts[0].endswith(".data"):
        scheme, rest = path.parts[1:2], path.parts[2:]
        return PurePosixPath(*rest) if rest and scheme in (("purelib",), ("platlib",)) else None
    return path


def _damaged(wheel: Path, why: str) -> InternalError:
    return InternalError(f"the Python package {wheel.name} cannot be unpacked: {why}", code="PackageDamaged")


async def _fetch(context: BuildContext, requirements: str, python: str, place: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise Refused(
            "this machine's Python has no pip, which fetches the packages that go into the image",
            code="ProgramMissing",
            hint=f"install it: {sys.executable} -m ensurepip, or the package python3-pip",
        )
    context.progress(None, "fetching Python packages for arm64")
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(await in_thread(tempfile.mkdtemp, prefix=".new-", dir=place.parent))
    try:
        lock = staging / "requirements.txt"
        await in_thread(lock.write_text, requirements)
        await _pip_download(context, lock, python, staging)
        await in_thread(_keep, staging, lock, place)
    except BaseException:
        await in_thread(shutil.rmtree, staging, ignore_errors=True)
        raise


def _keep(staging: Path, lock: Path, place: Path) -> None:
    lock.unlink()
    staging.rename(place)


async def _pip_download(context: BuildContext, lock: Path, python: str, into: Path) -> None:
    words = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    words += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    words += [f"--platform={platform}" for platform in _PLATFORMS]
    command = Command(
        [Path(sys.executable), *words, "--requirement", lock, "--dest", into],
        # Where this machine takes Python packages from is its own matter: pip is left all of its settings.
        env={name: value for name, value in os.environ.items() if name.startswith(("PIP_", "XDG_CONFIG"))},
        limits=Limits(seconds=600),
    )
    try:
        await context.runner.run(command)
    except (ProgramFailed, TimedOut) as exc:
        raise _explain(exc) from exc


def _explain(exc: ProgramFailed | TimedOut) -> CarmelError:
    words = exc.result.last_words if isinstance(exc, ProgramFailed) else exc.message
    if "DO NOT MATCH THE HASHES" in words:
        return Refused(
            "a Python package that was fetched is not the one that Carmel was locked to",
            code="PackageDamaged",
            hint="a proxy or mirror between here and the package index alters files: look there before anything else",
        )
    errors = [line for line in words.splitlines() if line.startswith("ERROR: ")]
    why = errors[-1].removeprefix("ERROR: ") if errors else "pip failed"
    return Unavailable(
        f"Python packages for arm64 could not be fetched: {why}",
        code="PackagesUnavailable",
        hint="check the network and pip's settings (does `python3 -m pip download pip` work?), then build again",
    )
