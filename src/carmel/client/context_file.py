"""Writing contexts into Carmel's own file (``contexts`` says where that is), which may hold others too.

A context is three entries of one name: cluster, user and context, as ``kubectl config`` makes them.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carmel.client.contexts import own_file, read_config
from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import Refused

_SECTIONS = ("clusters", "users", "contexts")


def save_context(name: str, endpoint: HttpsEndpoint, namespace: str = "default") -> Path:
    """Add context ``name``, or replace the one there is; the default context stays as it is. Answers the file.

    Raises ``Refused`` or ``Invalid`` if the file cannot be read or written; then it is as it was.
    """
    cluster: dict[str, Any] = {"server": str(endpoint)}
    if endpoint.ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(endpoint.ca.encode()).decode()
    if endpoint.server_name is not None:
        cluster["tls-server-name"] = endpoint.server_name
    entries = {
        "clusters": {"name": name, "cluster": cluster},
        "users": {"name": name, "user": _user(endpoint)},
        "contexts": {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}},
    }

    def change(config: dict[str, Any]) -> None:
        for section, entry in entries.items():
            config[section] = [*_others(config, section, name), entry]

    return _changed(change)


def _user(endpoint: HttpsEndpoint) -> dict[str, str]:
    user = {"token": endpoint.token} if endpoint.token is not None else {}
    if endpoint.certificate is not None and endpoint.key is not None:
        user["client-certificate-data"] = base64.b64encode(endpoint.certificate.encode()).decode()
        user["client-key-data"] = base64.b64encode(endpoint.key.encode()).decode()
    return user


def remove_context(name: str) -> None:
    """Take context ``name`` away, if it is there. Errors as ``save_context``."""

    def change(config: dict[str, Any]) -> None:
        for section in _SECTIONS:
            if section in config:
                config[section] = _others(config, section, name)
        if config.get("current-context") == name:
            del config["current-context"]

    if own_file().exists():
        _changed(change)


def _others(config: dict[str, Any], section: str, name: str) -> list[Any]:
    entries = config.get(section)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if not (isinstance(entry, dict) and entry.get("name") == name)]


def _changed(change: Callable[[dict[str, Any]], None]) -> Path:
    import yaml  # as in ``contexts``: only who uses contexts pays for YAML

    file = own_file()
    config = {"apiVersion": "v1", "kind": "Config", **read_config(file)}
    change(config)
    text = yaml.safe_dump(config, sort_keys=False)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it private: there are tokens in it.
        descriptor, fresh = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as writer:
                writer.write(text)
                writer.flush()
                os.fsync(descriptor)
            Path(fresh).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(fresh).unlink()
            raise
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}", code="ConfigNotWritable") from error
    return file
