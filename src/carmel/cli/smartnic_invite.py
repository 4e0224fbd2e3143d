"""What a SmartNIC gives its host, to be joined with it: made on the NIC, by its own authority."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path

from carmel.cli.manifests import to_yaml
from carmel.client.objects import JsonObject
from carmel.errors import Forbidden, Invalid, Refused
from carmel.paths import Paths
from carmel.run import Command, ProgramFailed, SystemRunner

_NAMESPACE = "carmel-system"
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}")


def invitation(host: str, name: str | None, address: str, days: int) -> str:
    """Two manifests, as YAML. Raises ``Refused``, ``Forbidden`` and ``Invalid``."""
    if not _ADDRESS.fullmatch(address):
        raise Invalid(
            f"{address!r} is no address with a port", code="InvalidAddress", hint="such as 192.168.100.2:17443"
        )
    called = name or _label(socket.gethostname())
    keys = _sign(Paths.from_environment(), host, days)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"smartnic-{called}", "namespace": _NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": keys,
    }
    smart_nic = {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "SmartNIC",
        "metadata": {"name": called},
        "spec": {"address": address, "credentialsSecretRef": {"name": f"smartnic-{called}"}},
    }
    return f"{to_yaml(secret)}---\n{to_yaml(smart_nic)}"


def write_privately(file: Path, text: str) -> None:
    """Anew, and readable by its owner alone from the first moment."""
    try:
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
    except OSError as exc:
        raise Refused(f"{file} cannot be written: {exc.strerror}", code="FileNotWritable") from exc


def _sign(paths: Paths, host: str, days: int) -> JsonObject:
    """The keys of the Secret, by the program that has cryptography loaded."""
    key = paths.pki / "ca.key"
    try:
        key.stat()
    except PermissionError as exc:
        raise Forbidden(f"{paths.pki} is not yours to read", code="KeysForbidden", hint="use sudo") from exc
    except OSError as exc:
        raise Refused(
            f"there is no certificate authority in {paths.pki}",
            code="NoAuthority",
            hint="run this on the SmartNIC itself, after its carmeld was started for the first time",
        ) from exc
    argv: list[str | Path] = [Path(sys.executable), "-m", "carmel.apiserver.pki", paths.pki]
    try:
        result = asyncio.run(SystemRunner().run(Command([*argv, "--client", host, "--days", str(days)])))
    except ProgramFailed as exc:
        raise Refused(f"no certificate could be made for {host}: {exc.result.last_words}", code="NotSigned") from exc
    keys: JsonObject = json.loads(result.stdout)
    return keys


def _label(name: str) -> str:
    """As the daemon calls its machine (``controllers.host_facts.host_name``)."""
    short = re.sub(r"[^a-z0-9-]+", "-", name.lower().split(".")[0]).strip("-")[:54].strip("-")
    return short or "host"
