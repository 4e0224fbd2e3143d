"""``carmel`` and ``kubectl`` as people run them, beside a daemon of ``tests.daemon``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.daemon import Daemon

_CARMEL = (sys.executable, "-c", "import sys; from carmel.cli.main import main; sys.exit(main())")
_CONFIGURATION = ("XDG_CONFIG_HOME", "KUBECONFIG", "CARMEL_CONTEXT")


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    stdout: str
    stderr: str


class Program:
    """A program of a user whose home is ``home``; ``seconds`` is the longest that one call may take."""

    def __init__(self, daemon: Daemon, home: Path, words: Sequence[str | Path], seconds: float, **more: str) -> None:
        self._words = tuple(map(str, words))
        self._seconds = seconds
        known = {key: value for key, value in daemon.environment().items() if key not in _CONFIGURATION}
        self._environment = {**known, "HOME": str(home), **more}

    def run(self, *words: str, stdin: str = "") -> Ended:
        """However it ends."""
        ended = subprocess.run(
            [*self._words, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=self._seconds,
            env=self._environment,
            check=False,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def __call__(self, *words: str, stdin: str = "") -> str:
        """What it prints. It has to end well."""
        ended = self.run(*words, stdin=stdin)
        assert ended.status == 0, f"{words}: {ended.status}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout


def carmel(daemon: Daemon, home: Path, seconds: float = 110) -> Program:
    return Program(daemon, home, _CARMEL, seconds)


def kubectl(daemon: Daemon, program: Path, config: Path, seconds: float = 110) -> Program:
    """``config`` is a kubeconfig file; what kubectl remembers of the server is kept beside it."""
    return Program(daemon, config.parent, [program], seconds, KUBECONFIG=str(config))
