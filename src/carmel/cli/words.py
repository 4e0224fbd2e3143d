"""``KIND NAME...`` and ``KIND/NAME...``: which objects a command means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from carmel.cli.session import Session
from carmel.client.discovery import ResourceType


@dataclass(frozen=True, slots=True)
class Target:
    """One object by its name, or with ``name`` ``None`` the whole kind. ``namespace`` is where it is looked for."""

    kind: ResourceType
    name: str | None
    namespace: str | None


def targets(session: Session, words: Sequence[str]) -> list[Target]:
    """What the words mean. Raises ``NotFound`` for unknown kinds and a usage error for a mixture of both forms."""
    if not words:
        raise click.UsageError("say which kind, for example `vm`")
    if any("/" in word for word in words):
        return [_slashed(session, word) for word in words]
    kinds = _kinds(session, words[0])
    names = words[1:]
    if not names:
        return [Target(kind, None, session.namespace_of(kind)) for kind in kinds]
    return [Target(kind, name, session.namespace_of(kind)) for kind in kinds for name in names]


def named_targets(session: Session, words: Sequence[str]) -> list[Target]:
    """As ``targets``, with a name for each."""
    found = targets(session, words)
    if any(one.name is None for one in found):
        raise click.UsageError(f"say which {found[0].kind.singular}: KIND NAME")
    return found


def one_target(session: Session, words: Sequence[str]) -> Target:
    """Exactly one object."""
    found = named_targets(session, words)
    if len(found) != 1:
        raise click.UsageError("name one object only: KIND NAME")
    return found[0]


def _slashed(session: Session, word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not slash or not kind or not name:
        raise click.UsageError(f"{word!r}: write all as KIND/NAME, or KIND NAME...")
    found = session.client.kind(kind)
    return Target(found, name, session.namespace_of(found))


def _kinds(session: Session, word: str) -> list[ResourceType]:
    if word == "all":
        return session.client.discovery.in_category("all")
    return [session.client.kind(one) for one in word.split(",") if one]
