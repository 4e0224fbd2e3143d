"""The peers of the placement measurements, in a virtual environment of their own, spoken to in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("nova==34.0.0", "ortools==9.15.6755")


def python() -> Path:
    """Their Python, made at the first time: a minute or two."""
    cache = Path(
        os.environ.get("CARMEL_CACHE_DIR") or Path(tempfile.gettempdir()) / f"carmel-bench-cache-{os.getuid()}"
    )
    home = cache / "placement-peers"
    done = home / "installed"
    if not done.exists() or done.read_text() != "\n".join(PACKAGES):
        print(f"making {home} with {' and '.join(PACKAGES)}", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.write_text("\n".join(PACKAGES))
    return home / "bin" / "python"


class Peer:
    """A program that answers every line with a line."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [python(), Path(__file__).with_name(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, words: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def ask(self, words: Mapping[str, Any]) -> Any:
        self.tell(words)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
