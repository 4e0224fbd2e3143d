"""The program runner, with real programs: limits, errors, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from pathlib import Path

import pytest

from carmel.errors import Refused, TimedOut
from carmel.run import Command, Limits, ProgramFailed, SystemRunner, child_environment, find_program

PYTHON = Path(sys.executable)


def python(code: str, **options: object) -> Command:
    return Command([PYTHON, "-c", code], **options)  # type: ignore[arg-type]


async def test_output_and_input() -> None:
    result = await SystemRunner().run(python("print(input()[::-1])", stdin=b"abc\n"))
    assert (result.status, result.text) == (0, "cba\n")


async def test_a_failure_quotes_the_programs_last_words() -> None:
    with pytest.raises(ProgramFailed, match=r"exit status 3\): out of cheese"):
        await SystemRunner().run(python("import sys; print('out of cheese', file=sys.stderr); sys.exit(3)"))


async def test_a_failure_can_be_expected() -> None:
    assert (await SystemRunner().run(python("raise SystemExit(3)"), check=False)).status == 3


async def test_a_missing_program_is_refused_with_a_hint() -> None:
    with pytest.raises(Refused) as caught:
        await SystemRunner().run(Command(["no-such-program-anywhere"]))
    assert caught.value.code == "ProgramMissing"
    assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd on this system")
async def test_too_slow_is_ended_with_its_whole_group(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    os.mkfifo(ready)
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(ready)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    running = asyncio.create_task(SystemRunner().run(python(code, limits=Limits(seconds=600))))
    grandchild = int(await asyncio.to_thread(ready.read_text))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(_ends, grandchild)


def _ends(pid: int) -> bool:
    """Wait for another's child to be killed: a pidfd becomes readable then (pidfd_open(2))."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20)[0])
    finally:
        os.close(handle)


async def test_a_time_limit_is_an_error_that_may_be_tried_again() -> None:
    with pytest.raises(TimedOut) as caught:
        await SystemRunner().run(python("import time; time.sleep(600)", limits=Limits(seconds=0.2)))
    assert caught.value.retryable


async def test_endless_output_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        await SystemRunner().run(python("while True: print('x' * 1000)", limits=Limits(output_bytes=10_000)))
    assert caught.value.code == "OutputTooLarge"


async def test_what_stays_has_no_limits_of_time_and_output() -> None:
    lines: list[str] = []
    talk = "import time\nfor _ in range(100): print('x' * 1000)\ntime.sleep(0.3)\nprint('done')"
    limits = Limits(seconds=0.01, output_bytes=10)
    result = await SystemRunner().run(python(talk, limits=limits, stays=True), on_line=lines.append)
    assert (result.status, result.text, len(lines), lines[-1]) == (0, "", 101, "done")


@pytest.mark.skipif(find_program("setpriv") is None, reason="no setpriv(1) on this machine")
async def test_what_stays_ends_with_who_runs_it(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    os.mkfifo(ready)
    stays = f"import os, time; open({str(ready)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = (
        "import asyncio, sys\n"
        "from carmel.run import Command, SystemRunner\n"
        f"asyncio.run(SystemRunner().run(Command([sys.executable, '-c', {stays!r}], stays=True)))\n"
    )
    runs = await asyncio.create_subprocess_exec(PYTHON, "-c", code, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    pid = int(await asyncio.to_thread(ready.read_text))
    runs.kill()
    await runs.wait()
    assert await asyncio.to_thread(_ends, pid)


@pytest.mark.skipif(find_program("prlimit") is None, reason="no prlimit(1) on this machine")
@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("bytearray(1 << 30)", Limits(address_space_bytes=256 << 20)),
        ("open('big', 'wb').write(b'x' * (1 << 20))", Limits(file_size_bytes=1 << 16)),
        ("while True: pass", Limits(cpu_seconds=1)),
    ],
    ids=["memory", "file size", "cpu"],
)
async def test_resource_limits_hold(code: str, limits: Limits, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed):
        await SystemRunner().run(python(code, limits=limits, cwd=tmp_path))


async def test_progress_comes_line_by_line() -> None:
    lines: list[str] = []
    await SystemRunner().run(python("import sys; sys.stdout.write('10%\\r20%\\ndone')"), on_line=lines.append)
    assert lines == ["10%", "20%", "done"]


def test_the_environment_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    environment = child_environment({"EXTRA": "1"})
    assert "SOME_TOKEN" not in environment
    assert environment["EXTRA"] == "1"
    assert environment["LC_ALL"] == "C.UTF-8"
