"""SmartNICs, drawn: against goldens (``CARMEL_GOLDEN=write`` writes them anew: then look at them), and by command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from carmel.cli.picture_ink import ASCII, UTF8, coloured, plain
from carmel.cli.smartnic_picture import NARROWEST, draw_nic
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from tests.unit.cli import smartnics
from tests.unit.cli.conftest import Carmel
from tests.unit.cli.smartnics import SCENES
from tests.unit.client.world import World

GOLDENS = Path(__file__).parents[2] / "data" / "smartnics"
CHARSETS = {"utf8": UTF8, "ascii": ASCII}
CASES = [
    ("busy", 120, "utf8"),
    ("busy", 120, "ascii"),
    ("busy", 80, "utf8"),
    ("busy", 44, "utf8"),
    ("busy", 44, "ascii"),
    ("away", 80, "utf8"),
    ("hostile", 80, "utf8"),
    ("own", 80, "utf8"),
]


@pytest.mark.parametrize(("name", "width", "charset"), CASES)
def test_a_picture_is_the_golden_one(name: str, width: int, charset: str) -> None:
    lines = plain(draw_nic(SCENES[name](), width, CHARSETS[charset]))
    assert max(map(len, lines)) <= width
    golden = GOLDENS / f"{name}-{width}-{charset}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("CARMEL_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
    if charset == "ascii":
        assert text.isascii()


def test_no_golden_is_left_over() -> None:
    assert {file.name for file in GOLDENS.iterdir()} == {f"{name}-{width}-{kind}.txt" for name, width, kind in CASES}


@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("width", [1, NARROWEST, 60, 79, 100, 300])
def test_it_fits_whatever_the_width(name: str, width: int) -> None:
    for charset in CHARSETS.values():
        lines = draw_nic(SCENES[name](), width, charset)
        assert max(map(len, lines)) <= max(width, NARROWEST)
        assert "\x1b[2J" not in "".join(plain(lines))
        assert len(coloured(lines)) == len(lines)


# -- by command -------------------------------------------------------------------------------------------------------
@pytest.fixture
def carmel(home: Path, lone: Carmel, monkeypatch: pytest.MonkeyPatch, joined: World) -> Carmel:
    monkeypatch.setenv("CARMEL_RUN_DIR", str(joined.folder))
    monkeypatch.setenv("COLUMNS", "110")
    return lone


@pytest.fixture
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host with a SmartNIC and a VM that has a function of it."""
    nic = smartnics.smart_nic(
        {
            "model": "emulated",
            "host": {"name": "pi"},
            "functions": [smartnics.function(0, "Plugged", "default/web-eth0")],
        }
    )
    port = smartnics.port("web", "eth0", "lan", mac="52:54:00:00:00:01")
    lan = smartnics.network("lan", uplinks=["p0"])
    with World(tmp_path_factory.mktemp("host")) as world:
        for kind, obj in ((SMART_NIC, nic), (NETWORK, lan), (PORT, port)):
            world.do(lambda store, kind=kind, obj=obj: store.create(kind, obj))  # type: ignore[misc]
            world.do(lambda store, kind=kind, obj=obj: store.replace(kind, obj, subresource="status"))  # type: ignore[misc]
        yield world


def test_show_draws_it(carmel: Carmel) -> None:
    shown = carmel("smartnic", "show", "nic-1", "--ascii")
    assert shown.status == 0, shown.err
    assert shown.out.splitlines()[0] == "SmartNIC nic-1 of host pi"
    assert "web/eth0  0000:01:00.0  0     pf0vf0    == pf0vf0       -- lan      -- p0" in shown.out
    assert carmel("smartnic", "show", "--ascii").out == shown.out


def test_the_host_draws_it_too(carmel: Carmel) -> None:
    assert "SmartNIC nic-1 of host pi" in carmel("host", "--ascii").out


def test_list_and_machine_readable_forms(carmel: Carmel) -> None:
    assert carmel("smartnic", "list").out.splitlines()[0].split()[:3] == ["NAME", "MODEL", "SERIAL"]
    assert yaml.safe_load(carmel("smartnic", "show", "nic-1", "-o", "yaml").out)["metadata"]["name"] == "nic-1"
    assert len(yaml.safe_load(carmel("smartnic", "list", "-o", "json").out)["items"]) == 1
    missing = carmel("smartnic", "show", "none")
    assert missing.status == 3
