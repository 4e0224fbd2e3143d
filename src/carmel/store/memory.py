"""What the store holds in memory: every object's bytes in the order of lists, and the recent changes of each kind.

Reads are answered from here alone, so they never wait for a disk. Only the event loop changes it, and only after
the change is durable, while the writer thread rests: so neither needs a lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from carmel.errors import Expired
from carmel.resources.kinds import Kind
from carmel.store.protocol import EventType, Stored

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-wide object is ``""``."""

HISTORY = 4096
HISTORY_BYTES = 4 * 1024 * 1024
ALWAYS_KEPT = 128
"""However large objects are, this many changes of a kind are kept: at least what one commit brings."""


@dataclass(frozen=True, slots=True)
class Change:
    """One durable change: from ``before`` (``None`` for a new object) to ``after`` (for a deletion: the last state)."""

    type: EventType
    revision: int
    before: Stored | None
    after: Stored

    @property
    def key(self) -> Key:
        return self.after.namespace or "", self.after.name


class Table:
    """The objects of one kind, and their last changes: at most ``history`` of them, and ``HISTORY_BYTES``."""

    def __init__(self, kind: Kind, history: int) -> None:
        self.kind = kind
        self.objects: dict[Key, Stored] = {}
        # The same, in the order of lists: a list of ten thousand is one slice.
        self._keys: list[Key] = []
        self._ordered: list[Stored] = []
        self._changes: list[Change] = []
        self._history = history
        self._history_bytes = 0
        self._compacted = 0

    def load(self, objects: Iterable[Stored]) -> None:
        self.objects = {(one.namespace or "", one.name): one for one in objects}
        self._keys = sorted(self.objects)
        self._ordered = [self.objects[key] for key in self._keys]

    def apply(self, change: Change) -> None:
        key = change.key
        index = bisect_left(self._keys, key)
        if change.type is EventType.DELETED:
            del self.objects[key], self._keys[index], self._ordered[index]
        else:
            if key in self.objects:
                self._ordered[index] = change.after
            else:
                self._keys.insert(index, key)
                self._ordered.insert(index, change.after)
            self.objects[key] = change.after
        self._changes.append(change)
        self._history_bytes += len(change.after.raw)
        self._compact()

    def _compact(self) -> None:
        gone = max(0, len(self._changes) - self._history)
        self._history_bytes -= sum(len(change.after.raw) for change in self._changes[:gone])
        while self._history_bytes > HISTORY_BYTES and len(self._changes) - gone > ALWAYS_KEPT:
            self._history_bytes -= len(self._changes[gone].after.raw)
            gone += 1
        if gone:
            self._compacted = self._changes[gone - 1].revision
            del self._changes[:gone]

    def changes_after(self, revision: int, limit: int | None = None) -> Sequence[Change]:
        """The changes since ``revision``, oldest first. Raises ``Expired`` when some of them are gone already."""
        if revision < self._compacted:
            raise expired()
        start = bisect_right(self._changes, revision, key=attrgetter("revision"))
        return self._changes[start : None if limit is None else start + limit]

    def items(self, namespace: str | None, after: Key | None = None) -> list[Stored]:
        """The objects of one namespace or of all, from behind ``after``."""
        return self._ordered[_range(self._keys, namespace, after)]

    def items_at(self, revision: int, namespace: str | None, after: Key | None) -> list[Stored]:
        """The same as it was at ``revision``: the changes since are undone. Raises ``Expired``."""
        then: dict[Key, Stored | None] = {
            change.key: change.before for change in reversed(self.changes_after(revision))
        }
        if not then:
            return self.items(namespace, after)
        keys = sorted({*self._keys, *then})
        found = (then[key] if key in then else self.objects[key] for key in keys[_range(keys, namespace, after)])
        return [one for one in found if one is not None]


def _range(keys: list[Key], namespace: str | None, after: Key | None) -> slice:
    start, end = 0, len(keys)
    if namespace is not None:
        start, end = bisect_left(keys, (namespace, "")), bisect_left(keys, (namespace + "\0", ""))
    if after is not None:
        start = max(start, bisect_right(keys, after))
    return slice(start, end)


class Memory:
    """The tables of all kinds, and the revision of the newest change.

    ``opened_from`` is the revision that the database had when it was opened; ``revision`` begins higher, so that no
    version is given twice even when an old backup was put in place.
    """

    def __init__(self, kinds: Iterable[Kind], history: int) -> None:
        self.tables = {kind: Table(kind, history) for kind in kinds}
        self.revision = 0
        self._opened_from = 0
        self._first = 0

    def start(self, opened_from: int, revision: int) -> None:
        self._opened_from = opened_from
        self._first = self.revision = revision

    def apply(self, changes: Iterable[Change]) -> set[Kind]:
        """Take in what was committed; answers the kinds that it touched."""
        touched = set()
        for change in changes:
            self.tables[change.after.kind].apply(change)
            self.revision = change.revision
            touched.add(change.after.kind)
        return touched

    def position(self, version: str) -> int:
        """The revision that a resource version stands for. Raises ``Expired`` for one that this run cannot place."""
        revision = int(version) if version.isascii() and version.isdigit() and len(version) < 20 else -1
        if revision == self._opened_from:
            return self._first
        if not self._first <= revision <= self.revision:
            raise expired()
        return revision


def expired() -> Expired:
    return Expired(
        "too old resource version: what changed since is not kept any more",
        hint="list again, and watch from the resourceVersion of that list",
    )
