"""Paths: roots by who we are, and socket paths that fit."""

from __future__ import annotations

from pathlib import Path

from carmel.paths import SOCKET_PATH_MAX_BYTES, Paths


def test_root_has_the_systems_directories() -> None:
    paths = Paths.from_environment({}, root=True)
    assert (paths.state, paths.runtime, paths.cache) == (
        Path("/var/lib/carmel"),
        Path("/run/carmel"),
        Path("/var/cache/carmel"),
    )


def test_a_user_has_the_xdg_directories() -> None:
    paths = Paths.from_environment({"HOME": "/home/eve", "XDG_RUNTIME_DIR": "/run/user/7"}, root=False)
    assert paths.state == Path("/home/eve/.local/state/carmel")
    assert paths.runtime == Path("/run/user/7/carmel")
    assert paths.cache == Path("/home/eve/.cache/carmel")


def test_given_directories_win() -> None:
    environment = {"CARMEL_STATE_DIR": "/s", "CARMEL_RUN_DIR": "/r", "CARMEL_CACHE_DIR": "/c"}
    paths = Paths.from_environment(environment, root=True)
    assert (paths.state, paths.runtime, paths.cache) == (Path("/s"), Path("/r"), Path("/c"))


def test_sockets_fit_where_macos_puts_them() -> None:
    runtime = Path("/private/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/carmel-501")
    machine = Paths(Path("/s"), runtime, Path("/c")).machine("3f1c1f0e-8d9b-4a39-8fd6-1f0a6d0f6a55")
    longest = max(
        (machine.qmp_socket, machine.serial_socket, machine.agent_socket, machine.network_socket(7)),
        key=lambda path: len(str(path)),
    )
    assert len(str(longest).encode()) <= SOCKET_PATH_MAX_BYTES
