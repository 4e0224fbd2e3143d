"""A shell on a VM's serial console: commands in, what they print out. In all guests of ours root is logged in there."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Iterator

from carmel.client.api import Client
from carmel.client.console import Console, open_console

_PATH = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines/{}/console"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_in_shell(client: Client, vm: str, script: str, seconds: float) -> str:
    """What ``script`` prints on the console of ``vm``. Its lines must be short: busybox takes 1024 characters."""
    nonce = secrets.token_hex(6)
    # What is typed is echoed, and in a here-document all of it before anything is run; only what is printed has the
    # words in one piece.
    typed = f"sh 2>&1 <<'{nonce}'\necho be''gin-{nonce}\n{script.strip()}\necho en''d-{nonce}\n{nonce}\n"
    said = ""
    with open_console(client.context.endpoint, _PATH.format(vm)) as console, _ended_after(console, seconds):
        console.send(typed.encode())
        while f"end-{nonce}" not in said:
            heard = console.receive()
            assert heard, f"the shell of {vm} did not end {script!r} in {seconds:.0f} s:\n{said[-2000:]}"
            said += heard.decode("utf-8", "replace")
    printed = said.partition(f"begin-{nonce}")[2].partition(f"end-{nonce}")[0]
    return _CONTROL.sub("", printed).replace("\r", "")


@contextlib.contextmanager
def _ended_after(console: Console, seconds: float) -> Iterator[None]:
    """A console on which nothing is said ends too."""
    timer = threading.Timer(seconds, console.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
