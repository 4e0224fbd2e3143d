"""Other versions of Carmel in a lab: what another one has is written into a machine's own files.

Its daemon is started anew with that, over the store and the VMs that are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.full.smartnic.pair import Pair, await_answer
from tests.system.lab.machine import LabMachine

_PYTHON = "/usr/lib/carmel/bin/python3"
# The byte code of a lab is not checked against its source.
_BECOME = """
import importlib.util, pathlib, carmel
for file, old, new in edits:
    path = pathlib.Path(carmel.__file__).parent / file
    kept = path.with_suffix(".own")
    if not kept.exists():
        kept.write_text(path.read_text())
    whole = path.read_text()
    assert whole.count(old) == 1, (file, old)
    path.write_text(whole.replace(old, new))
    pathlib.Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
"""
_RETURN = """
import importlib.util, pathlib, carmel
for kept in pathlib.Path(carmel.__file__).parent.rglob("*.own"):
    path = kept.with_suffix(".py")
    kept.rename(path)
    pathlib.Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """In a file of Carmel's, ``old``, which is there once, is ``new``."""

    file: str
    old: str
    new: str


def become(machine: LabMachine, version: str, *edits: Edit) -> None:
    """From its daemon's next start on it is of ``version``, and of what ``edits`` made of it."""
    own = machine.shell("sed -n 's/^__version__ = //p' /usr/lib/carmel/lib/python3*/site-packages/carmel/__init__.py")
    versions = Edit("__init__.py", f"__version__ = {own.strip()}", f'__version__ = "{version}"')
    lines = [json.dumps([edit.file, edit.old, edit.new]) for edit in (versions, *edits)]
    _run(machine, "edits = [\n" + ",\n".join(lines) + "\n]\n" + _BECOME)


def return_to_own(machine: LabMachine) -> None:
    """What was edited is as it was, from the next start on."""
    _run(machine, _RETURN)


def restart(pair: Pair, *machines: LabMachine) -> None:
    """Their daemons, at once."""
    for machine in machines:
        pair.kill_daemon(machine)
    for machine in machines:
        await_answer(machine)


def _run(machine: LabMachine, program: str) -> None:
    said = machine.shell(f"cat >/tmp/edit.py <<'P'\n{program}\nP\n{_PYTHON} /tmp/edit.py && echo do''ne")
    assert "done" in said, said
