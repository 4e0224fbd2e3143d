"""A shell on a VM's serial console: commands in, what they print out. In all guests of ours root is logged in there."""

from __future__ import annotations

import re
import secrets
import time

from carmel.client.api import Client
from carmel.client.console import open_console

_PATH = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines/{}/console"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_in_shell(client: Client, vm: str, script: str, seconds: float) -> str:
    """What ``script`` prints on the console of ``vm``. Its lines must be short: busybox takes 1024 characters."""
    nonce = secrets.token_hex(6)
    # What is typed is echoed, and in a here-document all of it before anything is run; only what is printed has the
    # words in one piece.
    typed = f"sh 2>&1 <<'{nonce}'\necho be''gin-{nonce}\n{script.strip()}\necho en''d-{nonce}\n{nonce}\n"
    said, deadline = "", time.monotonic() + seconds
    with open_console(client.context.endpoint, _PATH.format(vm)) as console:
        console.send(typed.encode())
        while f"end-{nonce}" not in said:
            assert time.monotonic() < deadline, f"the shell of {vm} did not end {script!r}:\n{said[-2000:]}"
            said += console.receive().decode("utf-8", "replace")
    printed = said.partition(f"begin-{nonce}")[2].partition(f"end-{nonce}")[0]
    return _CONTROL.sub("", printed).replace("\r", "")
