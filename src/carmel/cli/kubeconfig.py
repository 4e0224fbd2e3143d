"""``carmel kubeconfig``: how kubectl, and carmel on another machine, get in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import click

from carmel.cli.options import LabelType
from carmel.cli.session import Session, with_session
from carmel.client.api import Selection
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.endpoint import HttpsEndpoint
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import AlreadyExists, Forbidden, NotFound, Unavailable
from carmel.paths import Paths

_TOKENS_NAMESPACE = "carmel-system"
_RBAC = "rbac.authorization.k8s.io"
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """Where kubectl is to go, and whose certificate it is to trust (PEM; ``None``: the system's authorities).

    ``name`` is what the certificate is looked up by, where that is not the URL's.
    """

    url: str
    ca: str | None
    token: str | None = None
    name: str | None = None


@click.command()
@click.option(
    "--user", type=LabelType(), metavar="NAME", help="Make a token for this user, instead of showing your own."
)
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), help="With --user: what they may do.")
@click.option("--everywhere", is_flag=True, help="With --role: in all namespaces, not only in that of --namespace.")
@click.option("--address", metavar="HOST", help="The name or address of this host as seen from where it will be used.")
@with_session
def kubeconfig(session: Session, *, user: str | None, role: str | None, everywhere: bool, address: str | None) -> None:
    """Print a configuration for kubectl. Whoever has it is that user: keep it secret.

    \b
    carmel kubeconfig > ~/.kube/carmel && KUBECONFIG=~/.kube/carmel kubectl get vm
    ssh root@192.0.2.10 carmel kubeconfig --address 192.0.2.10 > ~/.config/carmel/config
    carmel kubeconfig --user alice --role viewer --namespace lab > alice.yaml
    """
    if user is None and (role or everywhere):
        raise click.UsageError("--role and --everywhere go with --user")
    if user is not None and role is None:
        raise click.UsageError("say by --role what the user may do")
    server = _server(session) if address is None else _seen_from_elsewhere(session, _server(session), address)
    if user is None or role is None:
        name, token = "admin", _own_token(server)
    else:
        name, token = user, _issue(session, user, role, None if everywhere else session.namespace)
    from carmel.cli.manifests import to_yaml  # YAML takes 10 ms to import

    click.echo(to_yaml(_config(server, name, token, session.namespace)), nl=False)


def _server(session: Session) -> Server:
    endpoint = session.client.context.endpoint
    if isinstance(endpoint, HttpsEndpoint):
        return Server(str(endpoint), endpoint.ca, endpoint.token)
    own = Paths.from_environment()
    paths = own if endpoint.socket == own.api_socket else Paths.from_environment({}, root=True)
    # As the daemon's ``apiserver.credentials`` names them.
    return Server(_url(session, paths), _text(paths.pki / "ca.crt"), _text(paths.pki / "admin.token"))


def _seen_from_elsewhere(session: Session, server: Server, address: str) -> Server:
    """The certificate is good for the host's own name, whatever it is called by elsewhere."""
    host = f"[{address}]" if ":" in address else address
    hosts = session.client.list(session.client.discovery.find_kind(CARMEL_API, "Host"), Selection())["items"]
    name = metadata(hosts[0], "name") if hosts else None
    return replace(server, url=f"https://{host}:{urlsplit(server.url).port or 443}", name=name)


def _url(session: Session, paths: Paths) -> str:
    """Where HTTPS listens: the daemon may have been given an address other than loopback."""
    hosts = session.client.list(session.client.discovery.find_kind(CARMEL_API, "Host"), Selection())
    for host in hosts["items"]:
        for endpoint in dig(host, "status", "endpoints") or []:
            if endpoint.get("name") == "https":
                return str(endpoint["url"])
    return f"https://127.0.0.1:{_text(paths.https_port_file)}"


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_BYTES).decode().strip()
    except PermissionError as exc:
        raise Forbidden(
            f"{file} is not yours to read",
            code="KeysForbidden",
            hint="`sudo carmel kubeconfig --user NAME --role ROLE` makes a token for you",
        ) from exc
    except OSError as exc:
        raise Unavailable(
            f"the daemon has not written {file}", code="DaemonNotRunning", hint="`carmel doctor` says whether it runs"
        ) from exc


def _own_token(server: Server) -> str:
    if server.token is None:
        raise NotFound("this context has no token to show", code="NoToken", hint="--user NAME --role ROLE makes one")
    return server.token


def _issue(session: Session, user: str, role: str, namespace: str | None) -> str:
    """A new token for ``user`` (an older one ends), and the role; ``namespace`` ``None`` is everywhere."""
    find = session.client.discovery.find_kind
    with contextlib.suppress(AlreadyExists):
        meta = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _TOKENS_NAMESPACE}}
        session.client.create(find("v1", "Namespace"), None, meta)
    binding_kind = find(f"{_RBAC}/v1", "RoleBinding" if namespace else "ClusterRoleBinding")
    _put(session, binding_kind, namespace, _binding(binding_kind, user, role))
    token = secrets.token_urlsafe(32)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"token-{user}"},
        "type": "carmel.dev/token",
        # The server keeps a hash: who reads its database cannot log in with what stands there.
        "stringData": {"sha256": hashlib.sha256(token.encode()).hexdigest(), "user": user},
    }
    _put(session, find("v1", "Secret"), _TOKENS_NAMESPACE, secret)
    return token


def _binding(kind: ResourceType, user: str, role: str) -> JsonObject:
    """Named by user and role: a role of a binding cannot be changed, so another role is another binding."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": _RBAC}],
    }


def _put(session: Session, kind: ResourceType, namespace: str | None, obj: JsonObject) -> None:
    session.client.apply(kind, namespace, obj, force=True)


def _config(server: Server, user: str, token: str, namespace: str) -> JsonObject:
    cluster: JsonObject = {"server": server.url}
    if server.name is not None:
        cluster["tls-server-name"] = server.name
    if server.ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode((server.ca.strip() + "\n").encode()).decode()
    context = {"cluster": "carmel", "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "carmel", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "carmel", "context": context}],
        "current-context": "carmel",
    }
