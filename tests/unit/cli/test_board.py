"""``carmel board``: needs no daemon."""

from __future__ import annotations

import json

import pytest
import yaml

from carmel.cli.main import main
from carmel.hardware.boards import catalogue


def test_the_list_has_every_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["ID", "NAME", "CORES"]
    assert [line.split()[0] for line in lines[1:]] == list(catalogue())
    jade = next(line for line in lines if line.startswith("mt-jade-altra-max "))
    assert "2 x 128" in jade
    assert jade.endswith("up to 8 TiB")
    assert lines[-1].split()[-1] == "-"


def test_the_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "list", "-o", "json"]) == 0
    boards = {one["id"]: one for one in json.loads(capsys.readouterr().out)["boards"]}
    assert set(boards) == set(catalogue())
    assert boards["raspberry-pi-4b"]["maxVCPUs"] == 8
    assert boards["generic-systemready"]["maxVCPUs"] is None
    assert main(["board", "list", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == list(catalogue())


def test_one_board_with_its_sources(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["board", "show", "jetson-agx-xavier"]) == 0
    shown = capsys.readouterr().out
    assert "Carmel cores in a socket     8" in shown
    assert "[Linux, arch/arm64/boot/dts/nvidia/tegra194.dtsi: /cpus]" in shown
    assert "IOMMU                        unknown" in shown
    assert main(["board", "show", "jetson-agx-xavier", "--no-sources"]) == 0
    assert "[Linux" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["1", "40", "80", "120"])
def test_it_fits_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["board", "show", "raspberry-pi-4b", "--no-sources"]) == 0
    widest = max(len(line) for line in capsys.readouterr().out.splitlines())
    assert widest <= max(int(columns), 80)


def test_one_board_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "show", "kunpeng-920-2p", "-o", "yaml"]) == 0
    board = yaml.safe_load(capsys.readouterr().out)
    assert board["numaNodes"] == 4
    distances = next(one for one in board["facts"] if one["name"] == "Distances")
    assert distances["value"] == "10 16 32 33 / 16 10 25 32 / 32 25 10 16 / 33 32 16 10"
    assert distances["sources"][0]["url"].startswith("https://")


def test_an_unknown_board_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "show", "mt-jade"]) == 3
    said = capsys.readouterr().err
    assert "'mt-jade'" in said
    assert "mt-jade-altra," in said


def test_a_form_that_boards_have_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "list", "-o", "jsonpath=.boards"]) == 2
    assert "table, yaml, json or name" in capsys.readouterr().err
