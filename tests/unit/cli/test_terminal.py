"""What happens on a real terminal, and with pipes: console, questions, progress, colour, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Carmel
from tests.unit.cli.terminals import Terminal
from tests.unit.client.world import World

PROGRAM = [sys.executable, "-c", "import sys; from carmel.cli.main import main; sys.exit(main())"]
OnTerminal = Callable[..., Terminal]


@pytest.fixture
def environment(world: World, home: Path) -> dict[str, str]:
    return {"CARMEL_RUN_DIR": str(world.folder), "HOME": str(home), "PYTHONPATH": str(Path("src").absolute())}


@pytest.fixture
def on_terminal(environment: dict[str, str]) -> OnTerminal:
    def start(*words: str, **more: str) -> Terminal:
        return Terminal(words, {**environment, **more})

    return start


@pytest.fixture(autouse=True)
def _fork_beside_threads() -> None:
    """The small host runs in a thread; the child of ``pty.fork`` only calls exec."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")


@pytest.fixture
def vm(carmel: Carmel, request: pytest.FixtureRequest) -> str:
    name: str = request.node.name.replace("_", "-").removeprefix("test-")[:30].strip("-")
    assert carmel("run", "micro", "--name", name).status == 0
    return name


def test_console_is_raw_and_ctrl_bracket_leaves_it(on_terminal: OnTerminal, vm: str) -> None:
    with on_terminal("console", vm) as terminal:
        terminal.expect(b"Ctrl-] leaves")
        terminal.expect(b"login: ")
        assert terminal.is_raw()
        terminal.type(b"\x03ls\r")
        terminal.expect(b"\r>")
        assert b"<\x03" in terminal.screen
        terminal.type(b"\x1d")
        assert terminal.end() == 0
        assert b"Detached." in terminal.screen


def test_console_leaves_the_terminal_as_it_was(on_terminal: OnTerminal, vm: str) -> None:
    with on_terminal("console", vm) as terminal:
        terminal.expect(b"login: ")
        terminal.type(b"exit\r")
        terminal.expect(b"does not run any more")
        assert not terminal.is_raw()
        assert terminal.end() == 0


def test_console_of_a_vm_that_does_not_run(on_terminal: OnTerminal, carmel: Carmel, vm: str) -> None:
    assert carmel("stop", vm).status == 0
    with on_terminal("console", vm) as terminal:
        assert terminal.end() == 5
        assert f"carmel start {vm}".encode() in terminal.screen
    assert b"Attached" not in terminal.screen


def piped(environment: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *words], input=stdin, env={**os.environ, **environment}, capture_output=True, timeout=30, check=False
    )


def test_console_with_pipes(environment: dict[str, str], vm: str) -> None:
    ended = piped(environment, "console", vm, stdin=b"exit\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"login: <exit\n>", b"")
    lingered = piped(environment, "console", vm, "--linger", "0.3s", stdin=b"\x1dhi\n")
    assert (lingered.returncode, lingered.stdout) == (0, b"login: <\x1dhi\n>")
    seen = piped(environment, "console", vm, "--until", "login:", "--timeout", "20s")
    assert (seen.returncode, seen.stdout) == (0, b"login: ")
    waited = piped(environment, "console", vm, "--until", "never", "--timeout", "0.3s")
    assert (waited.returncode, b"did not print 'never'" in waited.stderr) == (6, True)


def test_a_picture_is_coloured_on_a_terminal_only(on_terminal: OnTerminal, lone: Carmel, recorded_root: Path) -> None:
    words = ("host", "--sysroot", str(recorded_root))
    with on_terminal(*words, COLUMNS="80") as terminal:
        terminal.expect(b"gaps between clusters")
        assert b"\x1b[1mSocket 36: " in terminal.screen
    with on_terminal(*words, COLUMNS="80", NO_COLOR="1") as terminal:
        terminal.expect(b"gaps between clusters")
        assert b"\x1b" not in terminal.screen
    assert "\x1b" not in lone(*words).out


def test_delete_asks_on_a_terminal(on_terminal: OnTerminal, carmel: Carmel, vm: str) -> None:
    with on_terminal("delete", "vm", vm) as terminal:
        terminal.expect(b"[y/N]")
        terminal.type(b"n\r")
        assert terminal.end() == 5
    assert carmel("get", "vm", vm).status == 0
    with on_terminal("delete", "vm", vm) as terminal:
        terminal.expect(b"[y/N]")
        terminal.type(b"y\r")
        assert terminal.end() == 0
    assert carmel("get", "vm", vm).status == 3


def test_an_interrupted_question_ends_without_a_word_of_python(on_terminal: OnTerminal, vm: str) -> None:
    with on_terminal("delete", "vm", vm) as terminal:
        terminal.expect(b"[y/N]")
        assert terminal.interrupt() == 130
    assert b"Traceback" not in terminal.screen


def test_progress_is_one_line_that_goes_away(on_terminal: OnTerminal) -> None:
    with on_terminal("run", "debian", "--name", "progress") as terminal:
        assert terminal.end() == 0
    assert b"\r\x1b[K" in terminal.screen
    assert b"progress is PoweredOn" in terminal.screen
    live, _, _ = terminal.screen.partition(b"progress is PoweredOn")
    assert b"\n" not in live


def test_colour_is_for_terminals_that_want_it(on_terminal: OnTerminal, environment: dict[str, str]) -> None:
    with on_terminal("get", "vm", "nobody") as terminal:
        assert terminal.end() == 3
    assert b"\x1b[31m" in terminal.screen
    with on_terminal("get", "vm", "nobody", NO_COLOR="1") as terminal:
        assert terminal.end() == 3
    assert b"\x1b" not in terminal.screen
    assert b"\x1b" not in piped(environment, "get", "vm", "nobody").stderr


def test_ctrl_c_ends_a_watch_quietly(on_terminal: OnTerminal, vm: str) -> None:
    with on_terminal("get", "vm", "-w") as terminal:
        terminal.expect(vm.encode())
        assert terminal.interrupt() == 130
    assert b"Traceback" not in terminal.screen


def test_a_watch_shows_changes(on_terminal: OnTerminal, carmel: Carmel, vm: str) -> None:
    with on_terminal("get", "vm", vm, "-w", "--no-headers") as terminal:
        terminal.expect(b"PoweredOn")
        carmel("pause", vm)
        terminal.expect(b"Paused")
        assert terminal.interrupt() == 130


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], vm: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [*PROGRAM, "get", "vm", vm, "-o", "json"],
            env={**os.environ, **environment},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")
