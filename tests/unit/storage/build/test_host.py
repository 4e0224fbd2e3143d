"""The host image's own parts: the disk's layout, the initramfs' module tables, what is put where, and its recipe."""

from __future__ import annotations

import configparser
import re
from importlib import resources
from pathlib import Path

import pytest

from carmel.run import SystemRunner
from carmel.storage.build import RECIPES, host_system
from carmel.storage.build.cpio import Entry
from carmel.storage.build.customise import DEBIAN_FILES, System, customise
from carmel.storage.build.disk import Disk, Layout
from carmel.storage.build.initramfs import modprobe_entries
from carmel.storage.build.modules import Module, ModuleTree, parse_aliases
from carmel.storage.build.payload import PREFIX
from carmel.storage.build.sources import find_origin
from carmel.units import GIB, MIB
from tests.unit.storage.build.elf_files import module

_HERE = resources.files("carmel.storage.build")


def test_partitions_lie_behind_each_other_within_the_disk() -> None:
    layout = Layout(disk=2 * GIB, esp=256 * MIB)
    places = [tuple(map(int, found)) for found in re.findall(r"start=(\d+), size=(\d+)", layout.table)]
    assert places == [(2048, 524288), (526336, (2 * GIB - 258 * MIB) // 512)]
    # The backup of the table has 33 sectors at the end.
    assert sum(places[1]) * 512 <= 2 * GIB - 33 * 512
    assert layout.root_file_system < layout.root_partition


def test_two_disks_share_no_identity() -> None:
    one, other = (Disk(Path("x"), Layout(GIB, 64 * MIB), "carmel", "6.1", "ro") for _ in range(2))
    assert one.root_uuid != other.root_uuid
    assert re.fullmatch(r"UUID=[0-9A-F]{4}-[0-9A-F]{4}", one.esp_device)
    assert one.esp_device != other.esp_device
    assert one.kernel_command_line == f"root=UUID={one.root_uuid} ro"


def tables(modules: list[Module]) -> dict[str, str]:
    found = {entry.path: entry for entry in modprobe_entries("6.1.0", modules)}
    return {name: _content(found[f"lib/modules/6.1.0/{name}"]).decode() for name in ("modules.dep", "modules.alias")}


def _content(entry: Entry) -> bytes:
    data = entry.data
    return data if isinstance(data, bytes) else Path(str(data)).read_bytes()


def test_modprobe_finds_all_that_a_module_needs_and_whose_driver_it_is() -> None:
    modules = [
        Module("scsi_common", module()),
        Module("scsi_mod", module(depends="scsi_common")),
        # What it needs stands in any order.
        Module("libata", module(depends="scsi_common,scsi_mod")),
        Module("ahci", module(depends="libata,libahci", alias="pci:v*d*sv*sd*bc01sc06i01*")),
    ]
    assert tables(modules)["modules.dep"].splitlines() == [
        "scsi_common.ko:",
        "scsi_mod.ko: scsi_common.ko",
        "libata.ko: scsi_mod.ko scsi_common.ko",
        "ahci.ko: libata.ko scsi_mod.ko scsi_common.ko",
    ]
    assert tables(modules)["modules.alias"] == "alias pci:v*d*sv*sd*bc01sc06i01* ahci\n"


async def test_modules_are_found_by_the_directory_of_their_source(tmp_path: Path) -> None:
    for name in ("drivers/ata/ahci.ko", "drivers/nvme/host/nvme.ko", "drivers/atm/he.ko", "fs/ext4/ext4.ko"):
        path = tmp_path / "kernel" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(module())
    tree = ModuleTree(tmp_path, SystemRunner())
    assert sorted(tree.below("drivers/ata", "drivers/nvme/host")) == ["ahci", "nvme"]


def test_every_file_of_ours_is_there_and_every_unit_that_is_enabled() -> None:
    for files in (host_system.FILES, DEBIAN_FILES):
        for source in files:
            assert _HERE.joinpath(*source.split("/")).is_file(), source
    places = {place.rpartition("/")[2] for place in host_system.FILES.values()}
    assert set(host_system.ENABLED) <= places


@pytest.mark.parametrize("name", [name for name in host_system.FILES if name.endswith(".service")])
def test_units_can_be_read_and_run_what_is_there(name: str) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's documentation does it
    unit.read_string(_HERE.joinpath(*name.split("/")).read_text("utf-8"))
    program = unit["Service"]["ExecStart"].split()[0]
    assert program in {"/usr/bin/env", "/bin/sh", f"{PREFIX}/bin/python3"}
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert unit["Unit"]["Description"]


def test_a_host_is_called_carmel_and_is_nobody_yet(tmp_path: Path) -> None:
    for name in ("etc/ssh", "var/lib/dpkg", "var/lib/dbus", "var/lib/systemd", "var/cache/debconf", "boot", "usr/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run", "tmp", "var/tmp", "var/cache/apt", "var/lib/apt/lists", "var/log"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/ssh/ssh_host_rsa_key").touch()
    system = System("carmel", "root-uuid", "UUID=AB-CD", "root=UUID=root-uuid ro", "deb x y main\n")
    customise(tmp_path, system, host_system.FILES)
    assert (tmp_path / "etc/hostname").read_text() == "carmel\n"
    assert "UUID=AB-CD /boot/efi vfat" in (tmp_path / "etc/fstab").read_text()
    assert (tmp_path / "etc/kernel/entry-token").read_text() == "carmel\n"
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert list((tmp_path / "etc/ssh").glob("ssh_host_*")) == []
    # Cloud-init's files are the debian image's.
    assert not (tmp_path / "etc/cloud").exists()

    payload = tmp_path / "payload"
    (payload / "bin").mkdir(parents=True)
    (payload / "bin/python3").symlink_to("/usr/bin/python3.11")
    host_system.set_up(tmp_path, payload)
    assert (tmp_path / "usr/lib/carmel/bin/python3").is_symlink()
    assert str((tmp_path / "usr/bin/carmeld").readlink()) == f"{PREFIX}/bin/carmeld"


def test_the_image_names_mirrors_with_its_components_and_no_credentials() -> None:
    components = ("main", "non-free-firmware")
    origin = find_origin("bookworm", "http://mirror.example/debian", components)
    assert origin.for_the_image().splitlines()[0] == "deb http://mirror.example/debian bookworm main non-free-firmware"
    assert "main non-free-firmware" in origin.one_line(Path("/keys.gpg"))
    assert find_origin("bookworm", "file:/srv/debian", components).for_the_image() == ""


def test_the_key_changes_with_carmel_itself_and_with_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["host"]
    before = recipe.key_of([])
    assert recipe.components == ("main", "non-free-firmware")
    monkeypatch.setattr("carmel.storage.build.host.payload_inputs", lambda: b"another")
    assert recipe.key_of([]) != before


def test_aliases_are_read_from_the_module() -> None:
    assert parse_aliases(module(depends="a", alias="of:N*T*Cbrcm,bcm2711-pcie")) == ["of:N*T*Cbrcm,bcm2711-pcie"]
    assert parse_aliases(module(depends="a")) == []
