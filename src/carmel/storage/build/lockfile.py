"""The lock file that names every Python package Carmel runs with: what of it a host needs.

``requirements.lock`` is pip's requirements format as uv writes it: ``NAME==VERSION [; MARKER] \\``, lines of
``--hash=sha256:...``, and ``# via`` comments that say who wants the package. It lies beside this module in an
installed Carmel too.
"""

from __future__ import annotations

import re
from importlib import resources

from carmel.errors import InternalError

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==\S")
_VIA = re.compile(r"\s+#\s+(?:via\s*)?(.*)")
_WANTED_BY_CARMEL = "carmel (pyproject.toml)"


def locked_requirements() -> str:
    """The part of the lock file that Carmel itself needs to run: what only builds it is left out."""
    text = (resources.files("carmel.storage.build") / "requirements.lock").read_text()
    return select_runtime(text)


def select_runtime(text: str) -> str:
    """The packages that ``carmel`` wants, and those that these want. Raises ``InternalError`` if there are none."""
    packages, wanted_by = _read(text)
    kept = {_WANTED_BY_CARMEL}
    while found := {name for name, whom in wanted_by.items() if name not in kept and whom & kept}:
        kept |= found
    selected = [lines for name, lines in packages.items() if name in kept]
    if not selected:
        raise InternalError("the lock file does not say which packages carmel needs", code="LockFileDamaged")
    return "".join(f"{line}\n" for lines in selected for line in lines)


def _read(text: str) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Of each package its lines, and who wants it."""
    packages: dict[str, list[str]] = {}
    wanted_by: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name = pin[1]
            packages[name], wanted_by[name] = [line], set()
        elif name and (via := _VIA.match(line)):
            wanted_by[name].add(via[1].strip())
        elif name and line.strip().startswith("--hash="):
            packages[name].append(line)
    return packages, wanted_by
