"""Images as the CLI makes and awaits them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.cli.waiting import Goal, is_ready, wait_for
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import AlreadyExists, CarmelError, NotFound

_DOING = {
    "Pending": "waiting for",
    "Uploading": "receiving",
    "Downloading": "downloading",
    "Building": "building",
    "Converting": "converting",
}
READY = Goal("ready", is_ready)
_MICRO = "micro"


def image_kind(session: Session) -> ResourceType:
    return session.client.discovery.find_kind(CARMEL_API, "Image")


def manifest(name: str, source: JsonObject) -> JsonObject:
    return {"apiVersion": CARMEL_API, "kind": "Image", "metadata": {"name": name}, "spec": {"source": source}}


def source_for(word: str) -> JsonObject:
    """Where an image comes from that is known by this word alone: ``micro`` is always built (there is no official one),
    the rest are official cloud images, or built like them where the network has none.
    """
    if word == _MICRO:
        return {"build": {"recipe": word}}
    return {"catalog": {"name": word, "fallback": "Build"}}


def find_image(session: Session, name: str) -> JsonObject | None:
    try:
        return session.client.get(image_kind(session), session.namespace, name)
    except NotFound:
        return None


def make_image(session: Session, name: str, source: JsonObject) -> tuple[JsonObject, bool]:
    """The image of that name, and whether it was us who made it: somebody else may be faster."""
    kind = image_kind(session)
    try:
        return session.client.create(kind, session.namespace, manifest(name, source)), True
    except AlreadyExists:
        return session.client.get(kind, session.namespace, name), False


def await_image(session: Session, name: str, *, seconds: float, progress: Progress) -> JsonObject:
    """The image once it is ready. Raises what made it fail, and ``TimedOut``."""

    def show(image: JsonObject) -> None:
        phase = str(dig(image, "status", "phase") or "Pending")
        percent = dig(image, "status", "progressPercent")
        message = str(dig(image, "status", "message") or "")
        progress.step(f"{_DOING.get(phase, phase)} image {name}", message, percent)

    image = wait_for(
        session.client, image_kind(session), session.namespace, name, READY, seconds=seconds, on_change=show
    )
    assert image is not None
    return image


@contextlib.contextmanager
def taken_back_on_failure(
    session: Session, kind: ResourceType, made: JsonObject | None, *, always: bool = False
) -> Iterator[None]:
    """Delete what we made when what follows fails. An image that is merely slow stays, unless ``always``."""
    try:
        yield
    except CarmelError as exc:
        if made is not None and (always or not exc.retryable):
            with contextlib.suppress(CarmelError):
                uid = metadata(made, "uid") or None
                session.client.delete(kind, session.namespace, metadata(made, "name"), uid=uid)
        raise
