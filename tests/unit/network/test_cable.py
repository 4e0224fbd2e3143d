"""Cables: who is joined, by which sockets, and what is left of those who went."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.network import cable, cabling
from carmel.network.cable import End

FIRST = End("uid-1", "default/first", "2026-01-01", {"eth0": "52:54:00:00:00:01", "eth1": "52:54:00:00:00:02"})
SECOND = End("uid-2", "default/second", "2026-01-02", {"eth0": "52:54:00:00:00:03"})
THIRD = End("uid-3", "default/third", "2026-01-03", {"eth0": "52:54:00:00:00:04"})


def local(end: End, nic: str) -> str:
    return cable.socket_name(end.uid, nic)


def test_nics_of_one_name_lead_to_each_other_and_others_nowhere() -> None:
    assert cable.links([SECOND, FIRST]) == {
        f"{local(FIRST, 'eth0')}.peer": local(SECOND, "eth0"),
        f"{local(SECOND, 'eth0')}.peer": local(FIRST, "eth0"),
    }
    assert cable.links([FIRST]) == {}


def test_a_nic_sends_where_its_link_leads_and_listens_at_its_own_name() -> None:
    options = cable.netdev(Path("/run/c"), FIRST.uid, "eth0")
    assert options == {
        "type": "dgram",
        "local": {"type": "unix", "path": f"/run/c/{local(FIRST, 'eth0')}"},
        "remote": {"type": "unix", "path": f"/run/c/{local(FIRST, 'eth0')}.peer"},
    }


def test_the_first_two_are_joined_and_a_third_is_refused() -> None:
    everybody = [THIRD, SECOND, FIRST]
    cable.check("pair", FIRST.uid, everybody)
    cable.check("pair", SECOND.uid, everybody)
    with pytest.raises(Refused) as caught:
        cable.check("pair", THIRD.uid, everybody)
    assert (caught.value.code, caught.value.retryable) == ("CableTaken", True)
    assert "default/first and default/second" in caught.value.message
    cable.check("pair", THIRD.uid, [THIRD, FIRST])


def test_one_mac_address_at_both_ends_is_refused() -> None:
    twin = End("uid-2", "default/twin", "2026-01-02", FIRST.nics)
    with pytest.raises(Refused) as caught:
        cable.check("pair", twin.uid, [FIRST, twin])
    assert caught.value.code == "DuplicateMAC"


def test_names_are_short_and_tell_vms_nics_and_networks_apart() -> None:
    names = {cable.socket_name(uid, nic) for uid in ("a", "b") for nic in ("eth0", "eth1")}
    assert len(names) == 4
    assert {len(name) for name in names} == {16}
    assert cable.folder_name("a") != cable.folder_name("b")
    assert cable.group_of("a") != cable.group_of("b")


def test_a_folder_is_laid_anew_when_an_end_changes(tmp_path: Path) -> None:
    folder = tmp_path / "cable" / "f"
    cabling.lay(folder, [FIRST, SECOND], None)
    for end in (FIRST, SECOND):
        (folder / local(end, "eth0")).touch()
    (folder / local(SECOND, "gone")).mkdir()
    cabling.lay(folder, [FIRST, THIRD], None)
    assert {place.name for place in folder.iterdir()} == {
        local(FIRST, "eth0"),
        f"{local(FIRST, 'eth0')}.peer",
        f"{local(THIRD, 'eth0')}.peer",
    }
    assert str((folder / f"{local(FIRST, 'eth0')}.peer").readlink()) == local(THIRD, "eth0")
    cabling.lay(folder, [FIRST, THIRD], None)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_a_vm_had_goes_with_it_and_the_folder_with_the_last(tmp_path: Path) -> None:
    folders = tmp_path / "cable"
    folder = folders / "f"
    cabling.lay(folder, [FIRST, SECOND], None)
    (folder / local(FIRST, "eth1")).touch()
    cabling.clear(folders, FIRST.uid, keep=["eth1"])
    assert {place.name for place in folder.iterdir()} == {local(FIRST, "eth1"), f"{local(SECOND, 'eth0')}.peer"}
    cabling.clear(folders, FIRST.uid)
    cabling.clear(folders, SECOND.uid)
    assert list(folders.iterdir()) == []
    cabling.clear(folders, SECOND.uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to a group")
def test_only_the_cables_group_comes_in(tmp_path: Path) -> None:
    folder = tmp_path / "cable" / "f"
    group = cabling.usable_group(cable.group_of("pair"), os.getgid())
    cabling.lay(folder, [FIRST], group)
    stat = folder.stat()
    assert (stat.st_gid, stat.st_mode & 0o777) == (group, 0o770)
    assert folder.parent.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(("mapped", "group"), [("0 0 4294967295\n", 7_000_000), ("0 100000 65536\n", 12)])
def test_a_group_that_a_namespace_lacks_is_not_used(
    mapped: str, group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gid_map").write_text(mapped)
    monkeypatch.setattr(cabling, "_GROUPS", tmp_path / "gid_map")
    assert cabling.usable_group(7_000_000, 12) == group


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        cabling.lay(tmp_path / ("x" * 100), [FIRST], None)
    assert caught.value.code == "PathTooLong"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files with the queue's length and a sender's buffer."""
    queue, send = tmp_path / "queue", tmp_path / "send"
    monkeypatch.setattr(cabling, "_QUEUE", queue)
    monkeypatch.setattr(cabling, "_SEND_BUFFER", send)
    return queue, send


@pytest.mark.parametrize(
    ("length", "buffer", "after"), [("10", "212992", "512"), ("10", "4000000", "5209"), ("600", "212992", "600")]
)
def test_the_queue_is_made_as_long_as_a_sender_may_fill(
    length: str, buffer: str, after: str, kernel: tuple[Path, Path]
) -> None:
    queue, send = kernel
    queue.write_text(length)
    send.write_text(buffer)
    assert cabling.queue_problem() == ""
    assert queue.read_text().strip() == after


def test_a_queue_that_stays_short_is_told(kernel: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    queue, send = kernel
    queue.write_text("10")
    send.write_text("212992")

    def forbidden(*_arguments: object) -> int:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(Path, "write_text", forbidden)
    assert "sysctl net.unix.max_dgram_qlen=512" in cabling.queue_problem()


def test_a_system_without_such_a_queue_has_no_problem(kernel: tuple[Path, Path]) -> None:
    assert not any(path.exists() for path in kernel)
    assert cabling.queue_problem() == ""
