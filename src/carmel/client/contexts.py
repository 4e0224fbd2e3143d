"""Which server is meant: this host's socket, or a context of a kubeconfig file.

Contexts are looked for by name in Carmel's own file (``$CARMEL_CONFIG``, else ``~/.config/carmel/config``) and then
in kubectl's (``$KUBECONFIG``, else ``~/.kube/config``); all have kubectl's format. Without a name it is
``$CARMEL_CONTEXT``, the ``current-context`` of Carmel's own file, or ``local``. kubectl's current context is never
taken unasked: it may be a cluster that has nothing to do with this machine.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from carmel.client.endpoint import Context, HttpsEndpoint, UnixEndpoint
from carmel.errors import Invalid, NotFound, Refused
from carmel.paths import Paths

LOCAL = "local"
_MAX_CONFIG_BYTES = 4 * 1024 * 1024


def config_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where a user's own things lie: contexts, the ssh key, known hosts."""
    env = os.environ if environ is None else environ
    home = Path(env.get("HOME") or Path.home())
    return Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "carmel"


def choose_context(name: str | None = None, environ: Mapping[str, str] | None = None) -> Context:
    """The context called ``name``, or the default one. Raises ``NotFound``, ``Invalid`` or ``Refused``."""
    env = os.environ if environ is None else environ
    wanted = name or env.get("CARMEL_CONTEXT")
    if wanted == LOCAL:
        return _local(env)
    files = list(_files(env))
    if wanted is None:
        own = read_config(files[0])
        wanted = own.get("current-context") if own else None
        if not isinstance(wanted, str) or not wanted:
            return _local(env)
    seen: list[str] = [LOCAL]
    for file in files:
        config = read_config(file)
        names = [str(one.get("name")) for one in _entries(config, "contexts")]
        if wanted in names:
            return _from_config(config, wanted, file)
        seen += names
    raise NotFound(
        f"there is no context {wanted!r}", code="ContextNotFound", hint="contexts: " + ", ".join(dict.fromkeys(seen))
    )


def context_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """All contexts there are, ``local`` first. Files that cannot be read are left out."""
    names = [LOCAL]
    for file in _files(os.environ if environ is None else environ):
        try:
            names += [str(one.get("name")) for one in _entries(read_config(file), "contexts")]
        except (Invalid, Refused):
            continue
    return list(dict.fromkeys(names))


def _local(env: Mapping[str, str]) -> Context:
    """The user's own daemon where it runs, else the machine's."""
    socket = Paths.from_environment(env).api_socket
    if not socket.exists() and not env.get("CARMEL_RUN_DIR"):
        machine = Paths.from_environment({}, root=True).api_socket
        if machine.exists():
            socket = machine
    return Context(LOCAL, UnixEndpoint(socket))


def own_file(environ: Mapping[str, str] | None = None) -> Path:
    """Carmel's own file of contexts."""
    env = os.environ if environ is None else environ
    return Path(env["CARMEL_CONFIG"]) if env.get("CARMEL_CONFIG") else config_directory(env) / "config"


def _files(env: Mapping[str, str]) -> Iterator[Path]:
    yield own_file(env)
    home = Path(env.get("HOME") or Path.home())
    for part in (env.get("KUBECONFIG") or str(home / ".kube" / "config")).split(os.pathsep):
        if part:
            yield Path(part)


def read_config(file: Path) -> dict[str, Any]:
    """What a kubeconfig file holds; nothing if there is none. Raises ``Refused`` or ``Invalid``."""
    try:
        size = file.stat().st_size
        text = file.read_text("utf-8") if size <= _MAX_CONFIG_BYTES else None
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"{file} cannot be read: {exc}", code="ConfigUnreadable") from exc
    if text is None:
        raise Invalid(f"{file} is too large for a kubeconfig", code="ConfigInvalid")
    import yaml  # only who uses contexts pays for YAML (10 ms)

    try:
        config = yaml.safe_load(text) or {}
    except yaml.YAMLError as exc:
        raise Invalid(f"{file} is not YAML: {_first_line(exc)}", code="ConfigInvalid") from exc
    if not isinstance(config, dict):
        raise Invalid(f"{file} is not a kubeconfig", code="ConfigInvalid")
    return config


def _first_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]


def _entries(config: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    listed = config.get(field)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _named(config: Mapping[str, Any], field: str, name: object) -> dict[str, Any]:
    for one in _entries(config, field):
        inner = one.get(field.removesuffix("s"))
        if one.get("name") == name and isinstance(inner, dict):
            return inner
    return {}


def _from_config(config: Mapping[str, Any], name: str, file: Path) -> Context:
    context = _named(config, "contexts", name)
    cluster = _named(config, "clusters", context.get("cluster"))
    user = _named(config, "users", context.get("user"))
    server = str(cluster.get("server") or "")
    try:
        url = urlsplit(server)
        port = url.port or 443
    except ValueError as exc:
        raise Invalid(f"context {name!r} in {file}: {server!r} is not a URL", code="ConfigInvalid") from exc
    if url.scheme != "https" or not url.hostname:
        raise Invalid(
            f"context {name!r} in {file}: the server must be an https:// URL, not {server!r}", code="ConfigInvalid"
        )
    if user.get("exec") or user.get("auth-provider"):
        raise Refused(
            f"context {name!r} in {file} gets its credentials from a plug-in, which carmel does not run",
            code="CredentialPluginNotSupported",
            hint="give the user a token or a client certificate in the file",
        )
    endpoint = HttpsEndpoint(
        host=url.hostname,
        port=port,
        base_path=url.path.rstrip("/"),
        ca=_pem(cluster, "certificate-authority", file),
        server_name=cluster.get("tls-server-name"),
        verify=cluster.get("insecure-skip-tls-verify") is not True,
        token=_token(user, file),
        certificate=_pem(user, "client-certificate", file),
        key=_pem(user, "client-key", file),
    )
    return Context(name, endpoint, str(context.get("namespace") or "default"))


def _pem(section: Mapping[str, Any], field: str, file: Path) -> str | None:
    """``FIELD-data`` is base64; ``FIELD`` is a path, relative to the file that names it."""
    if data := section.get(f"{field}-data"):
        try:
            return base64.b64decode(str(data), validate=True).decode("ascii")
        except (binascii.Error, ValueError) as exc:
            raise Invalid(f"{file}: {field}-data is not base64 of PEM text", code="ConfigInvalid") from exc
    return _text_of(file.parent / str(section[field])) if section.get(field) else None


def _token(user: Mapping[str, Any], file: Path) -> str | None:
    if user.get("token"):
        return str(user["token"])
    return _text_of(file.parent / str(user["tokenFile"])).strip() if user.get("tokenFile") else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"{path} cannot be read: {exc}", code="ConfigUnreadable") from exc
