"""Who asks: peer credentials on the Unix socket, bearer tokens everywhere, on a SmartNIC its host's certificate.

The daemon's own user and root are ``system:masters``, who may do everything. Any other user of the machine is known
by name and groups, and may do what bindings say.

A user's token is a Secret of type ``carmel.dev/token`` in the namespace ``carmel-system``. Whoever issues it makes 32
random bytes, writes them (base64url, as the token) into the user's kubeconfig, and stores their hash alone::

    apiVersion: v1
    kind: Secret
    type: carmel.dev/token
    metadata: {name: token-alice, namespace: carmel-system}
    stringData:
      sha256: <hexadecimal SHA-256 of the token's text>
      user: alice
      groups: developers,night-shift      # may be left out

Deleting the Secret revokes the token at once. Only administrators of the whole host may write there
(``authorization``), for a token can be made out to any group.

A SmartNIC knows its host by a client certificate (mutual TLS) that its own authority signed and that lies in
``pki/hosts``: a copy that was signed earlier, or for a host whose file was removed, is nobody's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import grp
import hashlib
import hmac
import os
import pwd
import ssl
import time
from dataclasses import dataclass

from carmel.apiserver.connections import PeerCertificate
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.hostnames import GROUP as HOSTS
from carmel.apiserver.hostnames import HOST_USER, host_of
from carmel.apiserver.mirror import Mirror
from carmel.errors import Unauthorized
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET
from carmel.resources.selectors import parse_selector
from carmel.store.protocol import Store

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
SYSTEM_NAMESPACE = "carmel-system"
TOKEN_SECRET_TYPE = "carmel.dev/token"  # noqa: S105 - a type, not a secret
_MAX_TOKEN = 512
_REMEMBERED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class User:
    """A name and groups, as bindings mean them. ``uid`` is the system's number where there is one."""

    name: str
    groups: frozenset[str]
    uid: str = ""


def hash_token(token: str) -> str:
    """What is stored of a token. One hash is enough: a token has 256 random bits, nobody guesses them."""
    return hashlib.sha256(token.encode()).hexdigest()


def local_user(uid: int, owner_uid: int | None = None) -> User:
    """The user behind a process on this machine. Asks the user database: run it in a thread.

    Names that begin with ``system:`` belong to this server, whatever a directory service says.
    """
    if uid in {0, os.geteuid() if owner_uid is None else owner_uid}:
        return User(_user_name(uid), frozenset({MASTERS, AUTHENTICATED}), str(uid))
    name = _user_name(uid)
    groups = {group for group in _group_names(uid) if not group.startswith("system:")}
    return User(name, frozenset({*groups, AUTHENTICATED}), str(uid))


def _user_name(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
    return f"uid-{uid}" if name.startswith("system:") else name


def _group_names(uid: int) -> list[str]:
    try:
        entry = pwd.getpwuid(uid)
        numbers = os.getgrouplist(entry.pw_name, entry.pw_gid)
    except (KeyError, OSError):
        return []
    names = []
    for number in numbers:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


class LocalUsers:
    """Users of this machine by number, remembered for a minute: a directory service may be slow to answer."""

    def __init__(self, owner_uid: int | None = None) -> None:
        self._owner = owner_uid
        self._known: dict[int, tuple[float, User]] = {}

    async def user(self, uid: int) -> User:
        now = time.monotonic()
        known = self._known.get(uid)
        if known is None or now - known[0] > _REMEMBERED_SECONDS:
            known = self._known[uid] = (now, await asyncio.to_thread(local_user, uid, self._owner))
        return known[1]


class HostCertificates:
    """The hosts that a SmartNIC knows, by the files in ``pki/hosts``: looked at for each request, one small file."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def user(self, shown: PeerCertificate) -> User:
        """Raises ``Unauthorized``."""
        host = host_of(shown.common_name, shown.organisations)
        if host is None or not hmac.compare_digest(shown.sha256, self._known(host)):
            raise Unauthorized(
                "Unauthorized: this certificate is not, or no more, what this SmartNIC knows a host by",
                code="HostNotInvited",
                hint="on the NIC `carmel smartnic invite --host NAME` makes a new one for the host",
            )
        return User(HOST_USER + host, frozenset({HOSTS, AUTHENTICATED}))

    def _known(self, host: str) -> str:
        try:
            pem = self._credentials.host_certificate(host).read_text("ascii")
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        except (OSError, ValueError):
            return ""


class Authenticator:
    """Credentials to users. ``admin_token`` is the one in ``Paths.pki``; the others are Secrets. ``hosts``: on a
    SmartNIC, who may come with a certificate."""

    def __init__(
        self,
        store: Store,
        admin_token: str,
        local_users: LocalUsers | None = None,
        hosts: HostCertificates | None = None,
    ) -> None:
        self._local_users = local_users or LocalUsers()
        self._hosts = hosts
        self._admin_hash = hash_token(admin_token)
        self._tokens = Mirror(
            store,
            SECRET,
            namespace=SYSTEM_NAMESPACE,
            selector=parse_selector(SECRET, fields=f"type={TOKEN_SECRET_TYPE}"),
        )
        self._users: dict[str, User] = {}
        self._version = -1

    async def start(self) -> None:
        await self._tokens.start()

    async def stop(self) -> None:
        await self._tokens.stop()

    async def authenticate(
        self, authorization: str | None, peer_uid: int | None, certificate: PeerCertificate | None = None
    ) -> User:
        """The user of a request: by its token, which wins, else by its certificate or its process. Raises
        ``Unauthorized``."""
        if authorization is not None:
            return self.by_authorization(authorization)
        if certificate is not None and self._hosts is not None:
            return self._hosts.user(certificate)
        if peer_uid is None:
            raise unauthorized()
        return await self._local_users.user(peer_uid)

    def by_authorization(self, header: str) -> User:
        """The user of an ``Authorization`` header. Raises ``Unauthorized``."""
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            raise unauthorized()
        digest = hash_token(token)
        if hmac.compare_digest(digest, self._admin_hash):
            return User("carmel-admin", frozenset({MASTERS, AUTHENTICATED}))
        user = self._known().get(digest)
        if user is None:
            raise unauthorized()
        return user

    def _known(self) -> dict[str, User]:
        if self._version != self._tokens.version:
            self._version = self._tokens.version
            pairs = (_token_of(stored.json()) for stored in self._tokens.objects.values())
            self._users = dict(filter(None, pairs))
        return self._users


def unauthorized() -> Unauthorized:
    return Unauthorized(
        "Unauthorized",
        hint="send a bearer token (carmel kubeconfig prints a configuration with one), or use the Unix socket",
    )


def _token_of(secret: JsonObject) -> tuple[str, User] | None:
    """(hash, user) of a token's Secret; ``None`` for one that is not whole or is being deleted."""
    data = secret.get("data") or {}
    try:
        digest, name, groups = (
            base64.b64decode(data.get(key, ""), validate=True).decode().strip() for key in ("sha256", "user", "groups")
        )
    except (binascii.Error, ValueError):
        return None
    if len(digest) != 64 or not name or secret["metadata"].get("deletionTimestamp"):
        return None
    named = {group.strip() for group in groups.split(",") if group.strip()}
    return digest.lower(), User(name, frozenset({*named, AUTHENTICATED}))
