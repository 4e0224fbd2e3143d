"""Help, completion, speed-relevant imports, and that nobody is ever shown a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from carmel.cli.commands import SECTIONS
from carmel.cli.main import carmel as root
from carmel.cli.main import wants_json
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World

NAMES = [entry.name for _, entries in SECTIONS for entry in entries]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str, lone: Carmel) -> None:
    told = lone(name, "--help")
    assert told.status == 0
    assert told.out.startswith(f"Usage: carmel {name}")
    assert f"carmel {name}" in told.out.partition("\n")[2]


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    context = click.Context(root)
    for _, entries in SECTIONS:
        for entry in entries:
            command = root.get_command(context, entry.name)
            assert command is not None
            assert command.name == entry.name


def test_help_is_grouped_by_purpose(lone: Carmel) -> None:
    told = lone("--help").out
    titles = [title for title, _ in SECTIONS]
    assert [told.index(f"{title}:") for title in titles] == sorted(told.index(f"{title}:") for title in titles)
    assert all(f"  {name} " in told for name in NAMES)
    alone = lone()
    assert (alone.status, alone.out, alone.err) == (2, "", told)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["get", "-o", "json"], True),
        (["get", "-ojson"], True),
        (["get", "--output=json"], True),
        (["get", "-o", "yaml"], False),
        (["ssh", "web", "--", "-o", "json"], False),
        (["-o"], False),
    ],
)
def test_json_is_recognised_even_in_a_line_that_is_wrong(words: list[str], wanted: bool) -> None:
    assert wants_json(words) is wanted


def test_a_bug_is_told_as_one(carmel: Carmel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("1 by 0")

    monkeypatch.setattr("carmel.client.api.Client.table", broken)
    told = carmel("get", "vm", "-o", "table")
    assert told.status == 1
    assert told.err.startswith("error: carmel failed unexpectedly: ZeroDivisionError: 1 by 0\nhint: this is a bug")
    monkeypatch.setenv("CARMEL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        carmel("get", "vm")


def test_get_imports_nothing_heavy(world: World, home: Path) -> None:
    """The modules that would cost a tenth of a second each."""
    code = (
        "import sys; from carmel.cli.main import main; main(['get', 'vm', '-A']); "
        "print([one for one in ('pydantic', 'yaml', 'asyncio', 'websockets', 'carmel.resources', 'carmel.run') "
        "if one in sys.modules])"
    )
    environment = {**os.environ, "CARMEL_RUN_DIR": str(world.folder), "HOME": str(home)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=30)
    assert ended.stdout.splitlines()[-1] == b"[]"


def complete(run_folder: Path, home: Path, line: str) -> list[str]:
    words = line.split(" ")
    environment = {
        **os.environ,
        "CARMEL_RUN_DIR": str(run_folder),
        "HOME": str(home),
        "_CARMEL_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; from carmel.cli.main import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, timeout=30)
    return [one.partition(",")[2] for one in ended.stdout.decode().splitlines() if one]


def test_tab_completes_commands_kinds_and_names(world: World, home: Path, carmel: Carmel) -> None:
    assert carmel("run", "micro", "--name", "tabbed").status == 0
    assert complete(world.folder, home, "carmel con") == ["console"]
    assert complete(world.folder, home, "carmel get virt") == ["virtualmachine"]
    assert complete(world.folder, home, "carmel get vm ta") == ["tabbed"]
    assert complete(world.folder, home, "carmel stop t") == ["tabbed"]
    assert complete(world.folder, home, "carmel get vm -n la") == ["lab"]
    assert complete(world.folder, home, "carmel get vm -o y") == ["yaml"]
    assert complete(world.folder, home / "x", "carmel run mic") == ["micro"]


def test_tab_is_silent_without_a_daemon(home: Path, tmp_path: Path) -> None:
    assert complete(tmp_path / "nowhere", home, "carmel stop t") == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts(lone: Carmel, shell: str) -> None:
    assert "_CARMEL_COMPLETE" in lone("completion", shell).out
    assert lone("completion", "fish").status == 2
