"""Questions about oneself: SelfSubjectAccessReview, SelfSubjectRulesReview, SelfSubjectReview.

``kubectl auth can-i``, ``auth can-i --list`` and ``auth whoami`` ask them. They are created and answered, never kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from carmel.apiserver.authorization import Attributes, Authorizer
from carmel.apiserver.identity import User
from carmel.errors import BadRequest
from carmel.resources.base import JsonObject

Answer = Callable[[JsonObject, User, Authorizer], JsonObject]
"""(spec, who asks, authorizer) -> status"""


@dataclass(frozen=True, slots=True)
class Review:
    group: str
    kind: str
    plural: str
    answer: Answer


def _text(holder: Any, field: str) -> str:
    value = holder.get(field) if isinstance(holder, dict) else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"spec: {field} must be a string", field=field)
    return value


def _access(spec: JsonObject, user: User, authorizer: Authorizer) -> JsonObject:
    resource = spec.get("resourceAttributes")
    other = spec.get("nonResourceAttributes")
    if (resource is None) == (other is None):
        raise BadRequest("spec needs exactly one of resourceAttributes or nonResourceAttributes", field="spec")
    if resource is not None:
        plural, subresource = _text(resource, "resource"), _text(resource, "subresource")
        wanted = Attributes(
            verb=_text(resource, "verb"),
            group=_text(resource, "group"),
            resource=f"{plural}/{subresource}" if subresource else plural,
            namespace=_text(resource, "namespace"),
            name=_text(resource, "name"),
        )
    else:
        wanted = Attributes(verb=_text(other, "verb"), path=_text(other, "path") or "/")
    return {"allowed": authorizer.allowed(user, wanted)}


def _rules(spec: JsonObject, user: User, authorizer: Authorizer) -> JsonObject:
    rules = authorizer.rules(user, _text(spec, "namespace"))
    return {
        "resourceRules": [
            {"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources}
            for rule in rules
            if rule.resources
        ],
        "nonResourceRules": [{"verbs": rule.verbs, "nonResourceURLs": rule.paths} for rule in rules if rule.paths],
        "incomplete": False,
    }


def _self(_spec: JsonObject, user: User, _authorizer: Authorizer) -> JsonObject:
    info = {"username": user.name, "groups": sorted(user.groups)}
    return {"userInfo": {**info, "uid": user.uid} if user.uid else info}


REVIEWS = (
    Review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", _access),
    Review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews", _rules),
    Review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", _self),
)


def find_review(path: str) -> Review | None:
    for review in REVIEWS:
        if path == f"/apis/{review.group}/v1/{review.plural}":
            return review
    return None


def answer(review: Review, body: JsonObject, user: User, authorizer: Authorizer) -> JsonObject:
    """The review with its status. Raises ``BadRequest``."""
    for field, right in (("apiVersion", f"{review.group}/v1"), ("kind", review.kind)):
        if body.get(field, right) != right:
            raise BadRequest(f"{field} must be {right}", field=field)
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise BadRequest("spec must be an object", field="spec")
    metadata = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    return {
        "apiVersion": f"{review.group}/v1",
        "kind": review.kind,
        "metadata": metadata,
        "spec": spec,
        "status": review.answer(spec, user, authorizer),
    }
