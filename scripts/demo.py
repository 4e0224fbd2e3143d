"""``make demo``: from an installed checkout to a running Arm VM, by the same commands a user has.

Starts ``carmeld`` if none runs, then ``carmel run``. Run again, it finds the VM that runs already. ``--down`` ends
what it started.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from carmel.paths import Paths
from carmel.resources.catalog import find_entry

VM = "demo"
OFFICIAL = "debian"
SMALL = "micro"
_REACHABLE_SECONDS = 5
_DAEMON_SECONDS = 30


class DemoFailedError(Exception):
    """Told to the user as it is."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Boot an Arm VM from nothing.")
    parser.add_argument("--carmel", type=Path, default=Path(sys.executable).with_name("carmel"))
    parser.add_argument("--image", help="micro, debian, or another image of the catalogue")
    parser.add_argument("--began", type=float, default=time.time(), help="when the whole thing began (seconds, epoch)")
    parser.add_argument("--down", action="store_true", help="delete the VM and stop the daemon that the demo started")
    arguments = parser.parse_args()
    demo = Demo(arguments.carmel, Paths.from_environment())
    try:
        if arguments.down:
            demo.down()
        else:
            demo.up(arguments.image, arguments.began)
    except DemoFailedError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class Demo:
    """The steps, each a command that a user could type."""

    def __init__(self, carmel: Path, paths: Paths) -> None:
        self._carmel = carmel
        self._paths = paths
        self._log = paths.state / "carmeld.log"
        self._pid_file = paths.runtime / "demo-carmeld.pid"

    def up(self, image: str | None, began: float) -> None:
        if subprocess.run([self._carmel, "doctor"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
            subprocess.run([self._carmel, "doctor"], check=False)
            raise DemoFailedError("this machine lacks something that VMs need: see above")
        self._start_daemon()
        vm = self._running_vm()
        if vm is None:
            vm = self._boot(image)
        else:
            step(f"VM {VM} runs already")
        self._summary(vm, began)

    def down(self) -> None:
        self._run("delete", "vm", VM, "--force", check=False)
        try:
            pid = int(self._pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError):
            return
        deadline = time.monotonic() + _DAEMON_SECONDS
        while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
        self._pid_file.unlink(missing_ok=True)
        step("stopped carmeld")

    def _start_daemon(self) -> None:
        if self._answers():
            step("carmeld runs already")
            return
        step(f"starting the host daemon, carmeld (log: {self._log})")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._paths.runtime.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            daemon = subprocess.Popen(
                [self._carmel.with_name("carmeld")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(str(daemon.pid))
        deadline = time.monotonic() + _DAEMON_SECONDS
        while not self._answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                words = self._log.read_text(errors="replace").splitlines()[-5:]
                raise DemoFailedError("carmeld did not start:\n  " + "\n  ".join(words))
            time.sleep(0.1)

    def _answers(self) -> bool:
        return self._run("get", "hosts", "-o", "name", check=False, quiet=True).returncode == 0

    def _running_vm(self) -> dict[str, Any] | None:
        found = self._run("get", "vm", VM, "-o", "json", check=False, quiet=True)
        if found.returncode != 0:
            return None
        vm: dict[str, Any] = json.loads(found.stdout)
        if vm.get("status", {}).get("powerState") != "PoweredOn":
            self._run("start", VM, "--wait=ready")
            vm = json.loads(self._run("get", "vm", VM, "-o", "json", quiet=True).stdout)
        return vm

    def _boot(self, image: str | None) -> dict[str, Any]:
        chosen = image or (OFFICIAL if official_image_is_reachable() else SMALL)
        nonce = secrets.token_hex(4)
        if chosen != SMALL:
            try:
                self._create(chosen, "--cpus", "2", "--memory", "1Gi")
                return self._show()
            except DemoFailedError:
                if image is not None:
                    raise
                step(f"the official image did not work out; going on with {SMALL}, built here")
                self._run("delete", "vm", VM, "--force", check=False, quiet=True)
        self._create(SMALL, "--nonce", nonce)
        self._await_nonce(nonce)
        return self._show()

    def _create(self, image: str, *options: str) -> None:
        command = ("run", image, "--name", VM, *options, "--wait=ready")
        step("carmel " + " ".join(command))
        self._run(*command)

    def _await_nonce(self, nonce: str) -> None:
        """The guest itself prints what only this run told it."""
        with subprocess.Popen([self._carmel, "logs", VM, "-f"], stdout=subprocess.PIPE, text=True) as logs:
            assert logs.stdout is not None
            try:
                found = next((line for line in logs.stdout if f"ready nonce={nonce}" in line), None)
            finally:
                logs.terminate()
        if found is None:
            raise DemoFailedError(f"the guest did not answer: carmel logs {VM}")
        step("the guest says: " + re.sub(r"\x1b\[[0-9;]*m", "", found).strip())

    def _show(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self._run("get", "vm", VM, "-o", "json", quiet=True).stdout)
        return shown

    def _summary(self, vm: dict[str, Any], began: float) -> None:
        status = vm["status"]
        print()
        self._run("get", "vm", VM, "-o", "wide")
        addresses = ", ".join(status.get("addresses") or []) or "not told yet"
        forwards = [one for nic in status.get("networks") or [] for one in nic.get("forwards") or []]
        print(f"\nAn Arm VM runs under {status['accelerator'].upper()}, {time.time() - began:.0f} s after you asked.")
        print(f"Its address (behind this host): {addresses}")
        for one in forwards:
            print(f"Its port {one['guestPort']} is {one['hostAddress']}:{one['hostPort']} here.")
        ssh = any(one["guestPort"] == 22 for one in forwards)
        carmel = os.path.relpath(self._carmel) if self._carmel.is_relative_to(Path.cwd()) else str(self._carmel)
        second = (f"ssh {VM}", "log in") if ssh else (f"describe vm {VM}", "what it is and what happened to it")
        print("\nTry next:")
        for command, meaning in (
            (f"console {VM}", "its serial console; leave with Ctrl-]"),
            second,
            ("run debian --name web", "a full Debian beside it"),
        ):
            print(f"  {carmel} {command:<24} {meaning}")
        print("\nscripts/demo --down ends it all again.")

    def _run(self, *words: str, check: bool = True, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        sys.stdout.flush()
        done = subprocess.run(
            [self._carmel, *words],
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise DemoFailedError(f"carmel {' '.join(words)} ended with status {done.returncode}")
        return done


def official_image_is_reachable() -> bool:
    """One HEAD request, answered or not within a few seconds."""
    request = urllib.request.Request(find_entry(OFFICIAL).url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_REACHABLE_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def step(text: str) -> None:
    print(f"\033[1m==>\033[0m {text}" if sys.stdout.isatty() else f"==> {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
