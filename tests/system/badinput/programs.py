"""The programs that people run, and how they ended."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.daemon import Daemon

PROGRAM = "import sys; from carmel.cli.main import main; sys.exit(main())"
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ended:
    stdout: str
    stderr: str

    @property
    def error(self) -> dict[str, Any]:
        """What ``carmel -o json`` prints on standard error; nothing but that."""
        error: dict[str, Any] = json.loads(self.stderr)
        assert set(error) == {"code", "message", "hint", "retryable", "field"}
        return error


def _run(words: list[str], environment: dict[str, str], stdin: str, status: int) -> Ended:
    ended = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )
    assert ended.returncode == status, (
        f"{words[3:]}: {ended.returncode}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    )
    assert "Traceback" not in ended.stderr
    return Ended(ended.stdout, ended.stderr)


class Carmel:
    """The command line of a user with a home of their own."""

    def __init__(self, daemon: Daemon, home: Path) -> None:
        self.environment = {**daemon.environment(), "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "KUBECONFIG", "CARMEL_CONTEXT"):
            self.environment.pop(name, None)

    def __call__(self, *words: str, stdin: str = "", status: int = 0) -> Ended:
        """Fails unless it ends with ``status``."""
        return _run([sys.executable, "-c", PROGRAM, *words], self.environment, stdin, status)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """For what is not waited for."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env=self.environment,
            **{"stdin": subprocess.DEVNULL, **options},
        )


class Kubectl:
    """The kubectl that the lock file pins."""

    def __init__(self, daemon: Daemon, config: Path) -> None:
        self._environment = {**daemon.environment(), "KUBECONFIG": str(config), "HOME": str(config.parent)}
        self._program = Path(sys.executable).parent / "kubectl"

    def __call__(self, *words: str, stdin: str = "", status: int = 0) -> Ended:
        return _run([str(self._program), *words], self._environment, stdin, status)
