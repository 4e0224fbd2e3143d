"""Carmel for an Arm host: itself and its locked Python packages, as a tree of files that needs no installing.

The tree is a virtual environment (PEP 405), so that it sees neither the host's own Python packages nor they it, and
so that ``sys.executable -m carmel...``, as the daemon starts its helpers, finds everything:

===============================================  ================================================================
``pyvenv.cfg``                                   names the host's Python
``bin/python3``                                  a link to it: ``/usr/bin/python3.11``
``bin/carmel``, ``bin/carmeld``                  the programs
``lib/python3.11/site-packages/``                carmel and what it needs, with byte code where that could be made
===============================================  ================================================================

Byte code is the same on every processor but belongs to one minor version of Python. It is made here if this machine
has that version: importing without it takes a slow or emulated host several times as long. It is not checked against
its source when it is loaded (PEP 552, "unchecked"), so a file system that forgets times does no harm.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from carmel.run import Command, Limits, find_program
from carmel.storage.build.context import BuildContext
from carmel.storage.build.files import in_thread
from carmel.storage.build.lockfile import locked_requirements
from carmel.storage.build.wheels import fetch_wheels, unpack_wheel

PREFIX = "/usr/lib/carmel"
"""Where the tree lies on the host."""
READY_MADE = "share/carmel/images"
"""Where in the tree images lie that the host need not build: ``Paths.ready_made`` is this on the host."""
DEBIAN_PYTHON = "3.11"
"""The Python of Debian 12."""
_PROGRAMS = {"carmel": "carmel.cli.main", "carmeld": "carmel.daemon"}
_CODE = "import sys\nfrom {module} import main\nsys.exit(main())\n"


async def write_payload(context: BuildContext, into: Path, python: str = DEBIAN_PYTHON) -> None:
    """Write the tree into ``into``, an empty directory, as it is to lie at ``PREFIX`` of the host.

    ``python`` is the host's minor version. Errors as ``wheels.fetch_wheels``.
    """
    wheels = await fetch_wheels(context, locked_requirements(), python)
    context.progress(None, "unpacking Python packages")
    await in_thread(_write_tree, into, wheels, python)
    await compile_python(context, into, "lib", PREFIX, python)


def payload_inputs(python: str = DEBIAN_PYTHON) -> bytes:
    """What decides over the tree, for the key of an image that holds it."""
    digest = hashlib.sha256(f"{python} {PREFIX} {interpreter(python) is not None}\n".encode())
    digest.update(locked_requirements().encode())
    for path, file in _own_files():
        digest.update(f"{path}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _write_tree(into: Path, wheels: list[Path], python: str) -> None:
    site_packages = into / "lib" / f"python{python}" / "site-packages"
    site_packages.mkdir(parents=True)
    for wheel in wheels:
        unpack_wheel(wheel, site_packages)
    for path, file in _own_files():
        target = site_packages / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    configuration = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    (into / "pyvenv.cfg").write_text(configuration)
    programs = into / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(f"/usr/bin/python{python}")
    for name, module in _PROGRAMS.items():
        program = programs / name
        program.write_text(f"#!{PREFIX}/bin/python3 -I\n{_CODE.format(module=module)}")
        program.chmod(0o755)


def _own_files() -> Iterator[tuple[str, Traversable]]:
    """Carmel's own files by their paths below site-packages, sorted."""
    found = dict(_walk(resources.files("carmel"), "carmel"))
    for path in sorted(found):
        yield path, found[path]


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.name == "__pycache__" or entry.name.endswith(".pyc"):
            continue
        below = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, below)
        else:
            yield below, entry


def interpreter(python: str) -> Path | None:
    """A Python of that minor version on this machine."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    return find_program(f"python{python}")


async def compile_python(context: BuildContext, root: Path, folder: str, prefix: str, python: str) -> None:
    """Make byte code for what lies in ``folder`` of ``root``, which will be ``prefix`` on the host, if we can."""
    python_here = interpreter(python)
    if python_here is None:
        return
    words: list[str | Path] = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    words += ["-s", root, "-p", prefix, root / folder]
    # Its status says that some file could not be compiled: packages carry files for other versions of Python.
    await context.runner.run(Command([python_here, *words], limits=Limits(seconds=300)), check=False)
