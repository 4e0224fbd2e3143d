"""The one way to run an external program to its end.

Every program that Carmel waits for goes through a ``Runner``: with a time limit, a clean environment, no shell, no
standard input unless given, bounded output, and an error that quotes the program's own last words. Programs that
stay (QEMU and its helpers) are started in ``hypervisor``.

Resource limits are set by ``prlimit`` (util-linux, setrlimit(2)) where there is one, before the program's own code
runs; macOS has no such program, so there only time and output are limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from carmel.errors import CarmelError, Refused, TimedOut

_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "XDG_RUNTIME_DIR")
_PROXY_ENVIRONMENT = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
_TAIL_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. ``None`` is no limit."""

    seconds: float = 60.0
    cpu_seconds: int | None = None
    address_space_bytes: int | None = None
    file_size_bytes: int | None = None
    output_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """One call of one program. ``env`` adds to a short list of kept variables; the rest of ours is not passed on.

    ``stays``: it runs until it is cancelled, and no longer than this process (setpriv(1)). What it prints is only for
    who listens to its lines, however much it is, and of ``limits`` those of time and output do not count.
    """

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stdin: bytes | None = None
    limits: Limits = field(default_factory=Limits)
    user: int | None = None
    group: int | None = None
    pass_fds: tuple[int, ...] = ()
    stays: bool = False

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. ``status`` is the exit status, or minus the signal's number."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        return (self.stderr or self.stdout)[-_TAIL_BYTES:].decode("utf-8", "replace").strip()


class ProgramFailed(CarmelError):
    """A program ended with a status other than 0 and the caller did not expect that."""

    reason = "ProgramFailed"

    def __init__(self, command: Command, result: Result) -> None:
        how = f"exit status {result.status}" if result.status >= 0 else f"signal {-result.status}"
        words = result.last_words.splitlines()
        super().__init__(f"{command.program} failed ({how}): {words[-1] if words else 'it said nothing'}")
        self.result = result


class Runner(Protocol):
    """Runs programs. The real one is ``SystemRunner``; tests give one that answers from a script."""

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        """Run ``command`` to its end.

        ``on_line`` gets each line of standard error and output as it comes (progress). Cancelling the caller ends
        the program and its process group.

        Raises ``Refused`` (code ``ProgramMissing``) if there is no such program, ``TimedOut`` after
        ``limits.seconds``, ``Refused`` (code ``OutputTooLarge``), and ``ProgramFailed`` when ``check`` is true and
        the status is not 0.
        """
        ...


def find_program(name: str) -> Path | None:
    """Where ``name`` is. Debian keeps mkfs and friends in sbin, which a user's PATH lacks."""
    path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin"
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment a child gets: a short list of ours, C.UTF-8 messages, and ``extra``."""
    kept = {key: os.environ[key] for key in (*_KEPT_ENVIRONMENT, *_PROXY_ENVIRONMENT) if key in os.environ}
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    kept["LC_ALL"] = "C.UTF-8"
    kept.update(extra or {})
    return kept


class SystemRunner:
    """The real ``Runner``."""

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        argv = _limited(command)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if command.stdin is not None else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=command.cwd,
                env=child_environment(command.env),
                start_new_session=True,
                user=command.user,
                group=command.group,
                extra_groups=[] if command.user is not None else None,
                pass_fds=command.pass_fds,
            )
        except FileNotFoundError as exc:
            raise _missing(command.program) from exc
        collected = _Collected(None if command.stays else command.limits.output_bytes, on_line)
        try:
            async with asyncio.timeout(None if command.stays else command.limits.seconds):
                async with asyncio.TaskGroup() as pipes:
                    pipes.create_task(collected.drain(process.stdout, collected.stdout))
                    pipes.create_task(collected.drain(process.stderr, collected.stderr))
                    pipes.create_task(_feed(process.stdin, command.stdin))
                status = await process.wait()
        except TimeoutError as exc:
            raise TimedOut(
                f"{command.program} did not end within {command.limits.seconds:g} s", code="ProgramTimedOut"
            ) from exc
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await _end_group(process)
        result = Result(status, bytes(collected.stdout), bytes(collected.stderr))
        if check and status != 0:
            raise ProgramFailed(command, result)
        return result


def _missing(program: str) -> Refused:
    return Refused(
        f"the program {program} is not installed",
        code="ProgramMissing",
        hint="carmel doctor says what is missing on this machine and how to get it",
    )


def _limited(command: Command) -> list[str]:
    program = command.argv[0]
    found = program if isinstance(program, Path) else find_program(program)
    if found is None:
        raise _missing(command.program)
    argv = [str(found), *(str(word) for word in command.argv[1:])]
    if command.stays and (setpriv := find_program("setpriv")) is not None:
        argv = [str(setpriv), "--pdeathsig", "KILL", "--", *argv]
    limits = command.limits
    options = [
        f"--{name}={value}"
        for name, value in (
            ("cpu", limits.cpu_seconds),
            ("as", limits.address_space_bytes),
            ("fsize", limits.file_size_bytes),
        )
        if value is not None
    ]
    prlimit = find_program("prlimit")
    return [str(prlimit), *options, "--", *argv] if options and prlimit else argv


class _Collected:
    """``limit`` in bytes; ``None``: nothing is kept."""

    def __init__(self, limit: int | None, on_line: Callable[[str], None] | None) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._limit = limit
        self._on_line = on_line

    async def drain(self, stream: asyncio.StreamReader | None, into: bytearray) -> None:
        line = b""
        while stream is not None and (chunk := await stream.read(65536)):
            if self._limit is not None:
                into += chunk
            if self._limit is not None and len(into) > self._limit:
                raise Refused(f"a program printed more than {self._limit} bytes", code="OutputTooLarge")
            if self._on_line is not None:
                *lines, line = (line + chunk).replace(b"\r", b"\n").split(b"\n")
                for whole in lines:
                    self._on_line(whole.decode("utf-8", "replace"))
        if line and self._on_line is not None:
            self._on_line(line.decode("utf-8", "replace"))


async def _feed(stdin: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stdin is None or data is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the program's session behind, whatever way we leave."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # Before waiting: asyncio tells of a process's end only after its pipes are closed, and a full pipe that nobody
    # reads, or one held by a grandchild in a session of its own, would stay open. There is no public way to let go.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001
    for descriptor in (0, 1, 2):
        if (pipe := transport.get_pipe_transport(descriptor)) is not None:
            pipe.close()
    if process.returncode is None:
        await asyncio.shield(process.wait())
    # Not earlier: a transport that is closed looks for the process's end by itself, and takes it from asyncio.
    transport.close()
