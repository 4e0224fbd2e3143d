"""What nearly every command starts from: a client, and the namespace that is meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from carmel.cli.complete import complete_contexts, complete_namespaces
from carmel.client.api import Client, Selection
from carmel.client.contexts import choose_context
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, metadata

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    client: Client
    namespace: str

    def namespace_of(self, kind: ResourceType) -> str | None:
        """The namespace for one object of this kind; ``None`` for kinds of the whole cluster."""
        return self.namespace if kind.namespaced else None

    def namespace_for(self, kind: ResourceType, manifest: JsonObject) -> str | None:
        """The manifest's own namespace where it names one."""
        return (metadata(manifest, "namespace") or self.namespace) if kind.namespaced else None

    def select(self, kind: ResourceType, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Selection:
        return Selection(None if everywhere else self.namespace_of(kind), labels, fields)


def open_session(context_name: str | None, namespace: str | None) -> Session:
    """A session for options that may also stand before the command (``carmel -n x get vm``)."""
    click_context = click.get_current_context(silent=True)
    outer = click_context.find_root().params if click_context else {}
    context = choose_context(context_name or outer.get("context"))
    session = Session(Client(context), namespace or outer.get("namespace") or context.namespace)
    if click_context:
        click_context.call_on_close(session.client.close)
    return session


def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--context`` and ``--namespace``, and gives the command a ``Session`` as its first argument."""

    @click.option(
        "--context",
        "context_name",
        metavar="NAME",
        help="Talk to this context's server.",
        shell_complete=complete_contexts,
    )
    @click.option(
        "-n", "--namespace", metavar="NAME", help="Work in this namespace.", shell_complete=complete_namespaces
    )
    @functools.wraps(function)
    def wrapper(*, context_name: str | None, namespace: str | None, **options: Any) -> Any:
        return function(open_session(context_name, namespace), **options)

    return wrapper
