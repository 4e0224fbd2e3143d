from __future__ import annotations

from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.storage.build.sources import Source, find_origin, parse_deb822, parse_one_line

MAIN, SECURITY = "http://mirror.example/debian", "http://mirror.example/debian-security"


def machine(root: Path, files: dict[str, str], system: str = "debian") -> Path:
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(f'NAME="x"\nID={system}\n')
    for name, text in files.items():
        (root / "etc/apt" / name).write_text(text)
    return root


def suites(root: Path, mirror: str | None = None) -> list[tuple[str, str]]:
    return [(source.uri, source.suite) for source in find_origin("bookworm", mirror, root=root).sources]


EXPECTED = [(MAIN, "bookworm"), (MAIN, "bookworm-updates"), (SECURITY, "bookworm-security")]


def test_one_line_lists(tmp_path: Path) -> None:
    text = f"""# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] {MAIN} bookworm main contrib # behind
deb-src {MAIN} bookworm main
deb {SECURITY} bookworm-security main
"""
    assert suites(machine(tmp_path, {"sources.list": text})) == EXPECTED


def test_deb822_sources(tmp_path: Path) -> None:
    text = f"""Types: deb deb-src
# a comment
URIs: {MAIN}
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: {SECURITY}
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""
    assert suites(machine(tmp_path, {"sources.list.d/debian.sources": text})) == EXPECTED


def test_another_release_of_debian_has_ours_on_its_mirror(tmp_path: Path) -> None:
    text = f"deb {MAIN} trixie main\ndeb {MAIN} trixie-updates main\ndeb {SECURITY} trixie-security main\n"
    assert suites(machine(tmp_path, {"sources.list": text})) == EXPECTED


def test_other_peoples_archives_are_not_taken_for_debian(tmp_path: Path) -> None:
    text = f"deb http://tool.example/apt stable main\ndeb {MAIN} trixie main\ndeb {MAIN} trixie-updates main\n"
    assert suites(machine(tmp_path, {"sources.list": text})) == EXPECTED[:2]


def test_a_named_mirror_wins(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sources.list": "deb http://other.example/debian bookworm main\n"})
    assert suites(root, MAIN) == EXPECTED[:2]
    assert suites(root, f"{MAIN} {SECURITY}") == EXPECTED


@pytest.mark.parametrize(
    ("system", "text"),
    [("ubuntu", f"deb {MAIN} bookworm main\n"), ("debian", ""), ("debian", "deb cdrom:[Debian]/ bookworm main\n")],
)
def test_no_mirror_is_refused_with_what_to_do(tmp_path: Path, system: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        suites(machine(tmp_path, {"sources.list": text}, system))
    assert caught.value.code == "NoPackageMirror"
    assert caught.value.hint is not None
    assert "mirror" in caught.value.hint


def test_lines_that_cannot_be_read_are_left_out() -> None:
    assert list(parse_one_line('deb "unclosed x main\ndeb\ndeb [arch=a x\ndeb http://a.example b c\n')) == [
        Source("http://a.example", "b", ("c",))
    ]
    assert list(parse_deb822(": x\n continued\nTypes: deb\nURIs:\nSuites: a\n")) == []


def test_the_list_trusts_one_keyring_only(tmp_path: Path) -> None:
    text = find_origin("bookworm", MAIN, root=tmp_path).one_line(Path("/keys/debian.gpg"))
    assert text.splitlines()[0] == f"deb [signed-by=/keys/debian.gpg] {MAIN} bookworm main"


@pytest.mark.parametrize("mirror", ["not a mirror\ndeb evil", "ftp://x.example/debian", "http://x.example/\tdeb"])
def test_a_mirror_that_is_no_address_is_refused(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(Refused) as caught:
        find_origin("bookworm", mirror, root=tmp_path)
    assert caught.value.code == "MirrorInvalid"
