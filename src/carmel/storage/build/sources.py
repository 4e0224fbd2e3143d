"""Where this machine gets its Debian packages from, read from apt's own configuration.

Two formats, both from sources.list(5): one-line (``deb [option=value] URI suite component ...`` in ``*.list``) and
deb822 stanzas (``*.sources``). A Debian machine's own mirror is near and known to work, and no mirror has to be
written into this program.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: the URI of a mirror, one suite of it, the components."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """The archives of one Debian release that packages are taken from."""

    suite: str
    sources: tuple[Source, ...]

    def one_line(self, keyring: Path) -> str:
        """The text of a ``sources.list`` that trusts ``keyring`` alone."""
        return "".join(
            f"deb [signed-by={keyring}] {source.uri} {source.suite} {' '.join(source.components)}\n"
            for source in self.sources
        )

    def for_the_image(self) -> str:
        """The text of a ``sources.list`` for what is built: no local mirrors, no credentials."""
        return "".join(
            f"deb {source.uri} {source.suite} {' '.join(source.components)}\n"
            for source in self.sources
            if source.uri.startswith(("http://", "https://")) and "@" not in source.uri
        )


def find_origin(
    suite: str, mirror: str | None, components: tuple[str, ...] = ("main",), *, root: Path = Path("/")
) -> Origin:
    """The mirrors for ``suite``: the machine's own when it is Debian, else ``mirror``.

    ``mirror`` is the URI of an archive, and a space and the URI of its security archive if it has one. A machine that
    runs another release of Debian has the wanted one on the same mirrors, under ``suite`` and ``suite-updates``, and
    its security fixes under ``suite-security``.

    Raises ``Refused``: code ``NoPackageMirror`` when there is neither, ``MirrorInvalid`` if ``mirror`` is no address.
    """
    if mirror:
        return _named_origin(suite, mirror, components)
    machine = list(_machine_sources(root / "etc/apt")) if _is_debian(root) else []
    usable = [source for source in machine if "main" in source.components and _is_archive(source.uri)]
    own = {_release(source.suite) for source in usable if source.suite.endswith(("-updates", "-security"))}
    plain = [source for source in usable if not _suffix(source.suite)]
    main_uris = [source.uri for source in plain if _release(source.suite) in own] or [source.uri for source in plain]
    security_uris = [source.uri for source in usable if source.suite.endswith("-security")]
    if not main_uris:
        raise Refused(
            "no mirror of Debian's packages is known",
            code="NoPackageMirror",
            hint="this machine's apt has no Debian source: name a Debian mirror (its http or https address) for builds",
        )
    return _origin(suite, main_uris[:1], security_uris[:1], components)


def parse_one_line(text: str) -> Iterator[Source]:
    """The ``deb`` lines of a ``*.list`` file. Lines that cannot be read are left out, as they may not be ours."""
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if not words or words[0] != "deb":
            continue
        if len(words) > 1 and words[1].startswith("["):
            end = next((index for index, word in enumerate(words) if word.endswith("]")), len(words))
            words = [words[0], *words[end + 1 :]]
        if len(words) > 3:
            yield Source(words[1], words[2], tuple(words[3:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """The enabled binary stanzas of a ``*.sources`` file."""
    for fields in _stanzas(text.splitlines()):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                if components:
                    yield Source(uri, suite, components)


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    last = ""
    for line in [*lines, ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0].isspace():
            if last:
                fields[last] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()


def _machine_sources(apt: Path) -> Iterator[Source]:
    parts = apt / "sources.list.d"
    for path in [apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        yield from parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)


def _is_debian(root: Path) -> bool:
    try:
        lines = (root / "etc/os-release").read_text().splitlines()
    except OSError:
        return False
    return any(line.partition("=")[::2] in (("ID", "debian"), ("ID", '"debian"')) for line in lines)


def _is_archive(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "file:/", "mirror+", "mirror:"))


def _suffix(suite: str) -> str:
    return suite[len(_release(suite)) :]


def _release(suite: str) -> str:
    return suite.replace("/", "-").partition("-")[0]


def _named_origin(suite: str, mirror: str, components: tuple[str, ...]) -> Origin:
    uris = mirror.split(" ")
    if not 1 <= len(uris) <= 2 or not all(re.fullmatch(r"(https?://|file:/)[!-Z^-~]+", uri) for uri in uris):
        raise Refused(
            "the mirror for builds is not the address of a Debian archive",
            code="MirrorInvalid",
            hint="give an http or https address, and if wanted a space and that of the security archive",
        )
    return _origin(suite, uris[:1], uris[1:], components)


def _origin(suite: str, main: list[str], security: list[str], components: tuple[str, ...]) -> Origin:
    sources = [Source(uri, name, components) for uri in main for name in (suite, f"{suite}-updates")] + [
        Source(uri, f"{suite}-security", components) for uri in security
    ]
    return Origin(suite, tuple(sources))
