"""What is no stored resource: health, version, metrics, discovery, OpenAPI, reviews."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from starlette.responses import Response

from carmel import __version__
from carmel.apiserver import discovery, gnostic, openapi, reviews
from carmel.apiserver.authorization import HOST_METRICS, Authorizer
from carmel.apiserver.bodies import parse_object
from carmel.apiserver.hostnames import GROUP as HOSTS
from carmel.apiserver.identity import User
from carmel.apiserver.metrics import MEDIA_TYPE as METRICS_TYPE
from carmel.apiserver.metrics import Family, Metrics, gauge
from carmel.apiserver.negotiation import NotAcceptable, accepted
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.shared import Shared
from carmel.apiserver.status import JSON
from carmel.errors import MethodNotAllowed, NotFound
from carmel.resources.base import JsonObject
from carmel.resources.registry import KINDS
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import Store, Stored

KUBERNETES_MINOR = 33
"""The Kubernetes release whose API conventions are followed here; clients compare it with their own."""

Checks = Mapping[str, Callable[[], bool]]
"""Named conditions that must hold for the server to be ready. Answered from memory."""


@dataclass(slots=True)
class Endpoints:
    """Answers everything beside resources."""

    store: Store
    authorizer: Authorizer
    metrics: Metrics
    shared: Shared
    ready: Checks = field(default_factory=dict)
    _v2: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    async def answer(self, info: RequestInfo, request: Request, user: User) -> Response:
        review = reviews.find_review(info.path)
        if review is not None:
            if info.verb != "post":
                raise _not_allowed(request)
            body = parse_object(await request.body(), request.headers.get("content-type", ""))
            return _json(reviews.answer(review, body, user, self.authorizer), status=201)
        if info.path in {"/healthz", "/livez", "/readyz"}:
            return self._health(info.path, request)
        answer = await self._document(info.path, request, user)
        if answer is None:
            raise NotFound("the server could not find the requested resource")
        if info.verb != "get":
            raise _not_allowed(request)
        return answer

    async def _document(self, path: str, request: Request, user: User) -> Response | None:
        parts = path.split("/")[1:]
        if parts[0] in {"api", "apis"}:
            return _discover(parts, request)
        if path == "/openapi/v2":
            return await self._openapi_v2(request)
        if parts[:2] == ["openapi", "v3"]:
            return await _openapi_v3(parts[2:], request)
        if path == "/version":
            return _json(version())
        if path == "/metrics":
            only = HOST_METRICS if HOSTS in user.groups else None
            looked = [*await self._gauges(), *await self.metrics.waited_for()]
            return Response(self.metrics.render(looked, only=only), media_type=METRICS_TYPE)
        return _json({"paths": _paths()}) if path == "/" else None

    def _health(self, path: str, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            raise _not_allowed(request)
        results = {"ping": True}
        if path == "/readyz":
            results |= {name: check() for name, check in self.ready.items()}
            results["shutdown"] = not self.shared.stopping.is_set()
        good = all(results.values())
        lines = [f"[{'+' if fine else '-'}]{name} {'ok' if fine else 'failed'}" for name, fine in results.items()]
        verdict = f"{path.removeprefix('/')} check {'passed' if good else 'failed'}"
        text = "ok" if good and "verbose" not in request.query else "\n".join([*lines, verdict, ""])
        return Response(text, 200 if good else 503, media_type="text/plain")

    async def _openapi_v2(self, request: Request) -> Response:
        """JSON, or gnostic's protocol buffers for who asks for them first."""
        ranges = accepted(request.headers.get("accept", "*/*"))
        for entry in ranges:
            if entry.type in {JSON, "application/*", "*/*"}:
                return await self._v2_as(JSON, request)
            if entry.type in gnostic.ACCEPTED:
                return await self._v2_as(gnostic.MEDIA_TYPE, request)
        raise NotAcceptable(f"only the following media types are accepted: {JSON}, {gnostic.MEDIA_TYPE}")

    async def _v2_as(self, media_type: str, request: Request) -> Response:
        """Encoded at the first request and kept: 0.1 s on a fast machine, so in a thread."""
        if media_type not in self._v2:
            write = orjson.dumps if media_type == JSON else gnostic.encode
            document = await asyncio.to_thread(lambda: write(openapi.v2_document()))
            self._v2[media_type] = (document, openapi.digest(document))
        document, tag = self._v2[media_type]
        return _tagged(document, tag, media_type, request)

    async def _gauges(self) -> list[Family]:
        pages = {kind: await self.store.list(kind) for kind in KINDS}
        states = await asyncio.to_thread(_power_states, pages[VIRTUAL_MACHINE].items)
        return [
            gauge(
                "carmel_store_objects",
                "Objects in the store.",
                {(("resource", kind.resource),): len(page.items) for kind, page in pages.items()},
            ),
            gauge(
                "carmel_store_bytes",
                "Size of the objects in the store as JSON.",
                {
                    (("resource", kind.resource),): sum(len(one.raw) for one in page.items)
                    for kind, page in pages.items()
                },
            ),
            gauge(
                "carmel_virtual_machines",
                "Virtual machines by their power state.",
                {(("power_state", state),): count for state, count in states.items()},
            ),
            gauge("carmel_apiserver_watches", "Open watches.", self.shared.watches.taken),
            gauge("carmel_apiserver_streams", "Open consoles, logs and uploads.", self.shared.streams.taken),
        ]


def _power_states(machines: Sequence[Stored]) -> Counter[str]:
    states: Counter[str] = Counter()
    for machine in machines:
        states[(machine.json().get("status") or {}).get("powerState") or "Unknown"] += 1
    return states


def version() -> JsonObject:
    """``/version``: the Kubernetes API that is spoken, and our own version behind the plus sign."""
    return {
        "major": "1",
        "minor": str(KUBERNETES_MINOR),
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+carmel.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _discover(parts: list[str], request: Request) -> Response | None:
    accept = request.headers.get("accept", "")
    if len(parts) == 1:
        core = parts[0] == "api"
        aggregated = discovery.aggregated_version(accept)
        if aggregated is not None:
            body = orjson.dumps(discovery.aggregated(aggregated, core=core))
            media_type = discovery.aggregated_media_type(aggregated)
            response = _tagged(body, openapi.digest(body), media_type, request)
            response.headers["vary"] = "Accept"
            return response
        address = request.headers.get("host", "")
        return _json(discovery.api_versions(address) if core else discovery.group_list())
    if parts[0] == "api":
        found = discovery.resource_list("", parts[1]) if len(parts) == 2 else None
    elif len(parts) == 2:
        found = discovery.group(parts[1])
    else:
        found = discovery.resource_list(parts[1], parts[2]) if len(parts) == 3 else None
    return None if found is None else _json(found)


async def _openapi_v3(parts: list[str], request: Request) -> Response | None:
    if not parts:
        index = await asyncio.to_thread(openapi.v3_index)
        return _tagged(index, openapi.digest(index), JSON, request)
    for group, served in discovery.group_versions():
        if openapi.base_path(group, served) == "/".join(parts):
            document = await asyncio.to_thread(openapi.v3_document, group, served)
            assert document is not None
            tag = openapi.digest(document)
            response = _tagged(document, tag, JSON, request)
            if request.query.get("hash") == tag:
                response.headers["cache-control"] = "public, immutable"
            return response
    return None


def _tagged(body: bytes, tag: str, media_type: str, request: Request) -> Response:
    """An answer that clients may keep: 304 for who has it already."""
    etag = f'"{tag}"'
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if etag in known:
        return Response(status_code=304, headers={"etag": etag})
    return Response(body, headers={"etag": etag, "content-type": media_type})


def _json(body: JsonObject, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type=JSON)


def _paths() -> list[str]:
    served = [f"/{openapi.base_path(group, version)}" for group, version in discovery.group_versions()]
    fixed = ("/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
    return sorted([*served, *fixed])


def _not_allowed(request: Request) -> MethodNotAllowed:
    return MethodNotAllowed(f"the server does not allow this method on the requested resource: {request.method[:20]}")
