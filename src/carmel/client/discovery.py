"""Which kinds the server has, and what people may call them: asked of the server, never known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from carmel.errors import Invalid, NotFound

CARMEL_API = "carmel.dev/v1alpha1"
"""Asked first: nearly every word a user writes is one of Carmel's own kinds, and one request answers it."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One kind as the server's discovery describes it."""

    api_version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def title(self) -> str:
        """``virtualmachine.carmel.dev``: what ``-o name`` prints before the slash."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    def answers_to(self, word: str) -> bool:
        names = {self.plural, self.singular, self.kind.lower(), *self.short_names}
        name, _, rest = word.partition(".")
        return name in names and rest in {"", self.group, f"{self.version}.{self.group}"}

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path of the collection, of one object, or of its subresource."""
        path = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{quoted(namespace)}"
        path += f"/{self.plural}"
        if name:
            path += f"/{quoted(name)}"
        return f"{path}/{subresource}" if subresource else path


def quoted(segment: str) -> str:
    """One segment of a path. Names that came from a user may hold anything.

    Raises ``Invalid`` for what can be no name of anything (Kubernetes' rule for a path segment).
    """
    if segment in {".", ".."} or "/" in segment or "%" in segment:
        raise Invalid(
            f"{segment[:80]!r} is not a name: a name is not '.' or '..' and has no '/' or '%' in it",
            field="metadata.name",
            hint="use lower-case letters, digits and '-'",
        )
    return quote(segment, safe="")


GetJson = Callable[[str], dict[str, Any]]
"""The JSON at a path; raises ``NotFound`` where there is none."""


class Discovery:
    """Looks kinds up, one request a group and version, remembered as long as this value lives."""

    def __init__(self, get_json: GetJson) -> None:
        self._get_json = get_json
        self._known: dict[str, tuple[ResourceType, ...]] = {}

    def find(self, word: str) -> ResourceType:
        """The kind a person means by ``vm``, ``virtualmachines`` or ``vm.carmel.dev``. Raises ``NotFound``."""
        lowered = word.lower()
        for api_version in self._api_versions():
            for one in self.of(api_version):
                if one.answers_to(lowered):
                    return one
        raise NotFound(
            f"the server has no kind {word!r}", code="KindNotFound", hint="`carmel api-resources` lists the kinds"
        )

    def find_kind(self, api_version: str, kind: str) -> ResourceType:
        """The kind that a manifest names. Raises ``NotFound``."""
        try:
            listed = self.of(api_version)
        except NotFound:
            listed = ()
        for one in listed:
            if one.kind == kind:
                return one
        raise NotFound(
            f"the server has no kind {kind!r} in {api_version!r}",
            code="KindNotFound",
            hint="`carmel api-resources` lists the kinds",
        )

    def in_category(self, category: str) -> list[ResourceType]:
        """The kinds that ``carmel get all`` means."""
        return [one for one in self.all() if category in one.categories]

    def all(self) -> list[ResourceType]:
        return [one for api_version in self._api_versions() for one in self.of(api_version)]

    def of(self, api_version: str) -> tuple[ResourceType, ...]:
        """The kinds of one group and version, without subresources. Raises ``NotFound``."""
        if api_version not in self._known:
            prefix = "/apis" if "/" in api_version else "/api"
            path = "/".join(quoted(part) for part in api_version.split("/"))
            listed = self._get_json(f"{prefix}/{path}")
            self._known[api_version] = tuple(
                _resource_type(api_version, one)
                for one in listed.get("resources") or ()
                if "/" not in str(one.get("name"))
            )
        return self._known[api_version]

    def _api_versions(self) -> Iterator[str]:
        yield CARMEL_API
        yield "v1"
        for group in self._get_json("/apis").get("groups") or ():
            preferred = (group.get("preferredVersion") or {}).get("groupVersion")
            if preferred and preferred != CARMEL_API:
                yield str(preferred)


def _resource_type(api_version: str, found: dict[str, Any]) -> ResourceType:
    kind = str(found.get("kind") or "")
    return ResourceType(
        api_version=api_version,
        plural=str(found.get("name") or ""),
        singular=str(found.get("singularName") or kind.lower()),
        kind=kind,
        namespaced=bool(found.get("namespaced")),
        short_names=tuple(str(one) for one in found.get("shortNames") or ()),
        categories=tuple(str(one) for one in found.get("categories") or ()),
        verbs=tuple(str(one) for one in found.get("verbs") or ()),
    )
