"""The API as one ASGI application: authenticate, authorise, dispatch; every error is a Status.

Routing follows Kubernetes' ``RequestInfo`` instead of a table of patterns: what a path is about must be known for
authorisation anyway, and kinds are data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carmel.apiserver import channels, reading, watching, writing
from carmel.apiserver.authorization import Attributes, Authorizer, attributes_of
from carmel.apiserver.bindings import Bindings
from carmel.apiserver.endpoints import Checks, Endpoints
from carmel.apiserver.identity import Authenticator, User
from carmel.apiserver.metrics import Metrics
from carmel.apiserver.query import flag
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo, resolve
from carmel.apiserver.responses import abort
from carmel.apiserver.reviews import find_review
from carmel.apiserver.shared import Shared
from carmel.apiserver.status import failure, status_response
from carmel.apiserver.streams import Streams
from carmel.errors import BadRequest, CarmelError, InternalError, Invalid, NotFound, Refused
from carmel.resources.kinds import Kind
from carmel.store.protocol import Store

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """What the application is made of. ``ready`` names conditions that ``/readyz`` asks. ``bindings`` are a SmartNIC's.
    ``not_here``: kinds of which there can be none here, each with the sentence that says why."""

    store: Store
    authenticator: Authenticator
    authorizer: Authorizer
    streams: Streams
    metrics: Metrics = field(default_factory=Metrics)
    shared: Shared = field(default_factory=Shared)
    ready: Checks = field(default_factory=dict)
    bindings: Bindings | None = None
    not_here: Mapping[Kind, str] = field(default_factory=dict)


Handler = Callable[[RequestInfo, Request], Awaitable[ASGIApp]]


def build_app(config: ApiConfig) -> App:
    """The application. ``start`` it before the first request, ``stop`` it after the last."""
    return App(config)


class App:
    def __init__(self, config: ApiConfig) -> None:
        store, shared, streams = config.store, config.shared, config.streams
        self.shared = shared
        self.metrics = config.metrics
        self._authenticator = config.authenticator
        self._authorizer = config.authorizer
        self._streams = streams
        self._bindings = config.bindings
        self._not_here = config.not_here
        self._endpoints = Endpoints(store, config.authorizer, config.metrics, shared, config.ready)
        self._date = (0, b"")
        self._verbs: Mapping[str, Handler] = {
            "get": lambda info, request: reading.get(store, info, request),
            "list": lambda info, request: reading.list_objects(store, info, request),
            "watch": lambda info, request: watching.watch(store, shared, info, request),
            "create": lambda info, request: writing.create(store, info, request),
            "update": lambda info, request: writing.replace(store, info, request),
            "patch": lambda info, request: writing.patch(store, info, request),
            "delete": lambda info, request: writing.delete(store, info, request),
            "deletecollection": lambda info, request: writing.delete_collection(store, info, request),
        }
        self._subresources: Mapping[str, Handler] = {
            "log": lambda info, request: channels.read_log(streams, shared, info, request),
            "download": lambda info, _request: channels.send_image(streams, shared, info),
            "upload": lambda info, request: channels.receive_upload(streams, shared, store, info, request),
        }

    async def start(self) -> None:
        """Learn tokens and bindings; they are followed until ``stop``."""
        await self._authenticator.start()
        await self._authorizer.start()

    async def stop(self) -> None:
        await self._authorizer.stop()
        await self._authenticator.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    # -- HTTP -----------------------------------------------------------------------------------------------------
    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        answered = _Answered(send, self._date_header())
        request = Request(scope, receive)
        info: RequestInfo | None = None
        try:
            user = await self._authenticate(request)
            watch = request.method == "GET" and flag(request.query, "watch")
            info = resolve(request.method, request.raw_path, watch=watch)
            response = await self._dispatch(info, request, user)
        except CarmelError as error:
            response = self._failed(error, info, request)
        except Exception as error:  # noqa: BLE001 - the last resort: a client gets a Status, the log the rest
            _LOG.exception("a request failed: %s %r", request.method, scope.get("path"))
            response = self._failed(_bug(error), info, request)
        try:
            await response(scope, receive, answered)
        except TimeoutError:
            _LOG.info("a client did not read its answer and was cut off")
            abort(scope)
        except Exception:  # noqa: BLE001 - half an answer is out: log it, and let the client see that it broke
            _LOG.exception("an answer broke off: %s %r", request.method, scope.get("path"))
            abort(scope)
        finally:
            self._count(info, answered.status, time.perf_counter() - began)

    async def _authenticate(self, request: Request) -> User:
        peer = request.scope.get("state", {})
        return await self._authenticator.authenticate(
            request.headers.get("authorization"), peer.get("peer_uid"), peer.get("peer_certificate")
        )

    async def _dispatch(self, info: RequestInfo, request: Request, user: User) -> ASGIApp:
        review = find_review(info.path) if info.kind is None else None
        wanted = Attributes("create", review.group, review.plural) if review else attributes_of(info)
        self._authorizer.check(user, wanted)
        if info.kind is None:
            return await self._endpoints.answer(info, request, user)
        if info.subresource == "console":
            raise BadRequest("Upgrade request required", hint="open the console as a WebSocket: carmel console NAME")
        if info.subresource == "binding":
            return await self._bind(info, request, user)
        if handler := self._subresources.get(info.subresource):
            return await handler(info, request)
        if info.verb in {"create", "update", "patch"} and info.kind in self._not_here:
            raise Refused(self._not_here[info.kind], code="NotOnSmartNIC")
        return await self._verbs[info.verb](info, request)

    async def _bind(self, info: RequestInfo, request: Request, user: User) -> ASGIApp:
        if self._bindings is None:
            raise NotFound("ports are bound to functions by SmartNICs, and this is none", code="NoSmartNIC")
        return await self._bindings.answer(info, request, user)

    # -- WebSocket ------------------------------------------------------------------------------------------------
    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        await receive()
        request = Request(scope, receive)
        info: RequestInfo | None = None
        code = 101
        try:
            user = await self._authenticate(request)
            info = resolve("GET", request.raw_path)
            if info.subresource != "console":
                raise NotFound("the server could not find the requested resource")
            self._authorizer.check(user, attributes_of(info))
            await channels.console(self._streams, self.shared, info, scope, receive, send)
        except CarmelError as error:
            code = error.http_status
            await channels.refuse(send, _status_of(error, info, request))
        finally:
            self._count(info, code, time.perf_counter() - began, verb="connect")

    # -- answers --------------------------------------------------------------------------------------------------
    def _failed(self, error: CarmelError, info: RequestInfo | None, request: Request) -> ASGIApp:
        return status_response(_status_of(error, info, request))

    def _count(self, info: RequestInfo | None, status: int, seconds: float, verb: str = "") -> None:
        if info is None:
            self.metrics.observe("unknown", "", status, seconds)
            return
        resource = info.kind.resource if info.kind is not None else ""
        if info.subresource:
            resource = f"{resource}/{info.subresource}"
        known = info.verb if info.verb in self._verbs or info.verb == "post" else "other"
        stream = info.subresource in {"log", "upload", "download"}
        self.metrics.observe(verb or ("connect" if stream else known), resource, status, seconds)

    def _date_header(self) -> bytes:
        """RFC 9110 section 6.6.1, made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode())
        return self._date[1]


class _Answered:
    """``send`` that notes the status and adds the headers that every answer has."""

    __slots__ = ("_date", "_send", "status")

    def __init__(self, send: Send, date: bytes) -> None:
        self._send = send
        self._date = date
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((b"date", self._date))
            if all(name != b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-cache, private"))
            headers.append((b"x-content-type-options", b"nosniff"))
            message = {**message, "headers": headers}
        await self._send(message)


def _status_of(error: CarmelError, info: RequestInfo | None, request: Request) -> dict[str, object]:
    if info is None or info.kind is None:
        return failure(error)
    # Kubernetes names the kind where the object is at fault, and the resource everywhere else.
    kind = info.kind.kind if isinstance(error, Invalid) else info.kind.plural
    return failure(error, kind=kind, group=info.kind.group, name=info.name or request.object_name)


def _bug(error: Exception) -> InternalError:
    return InternalError(
        f"the server met an error of its own ({type(error).__name__})",
        hint="the daemon's log has the details; please report them",
    )
