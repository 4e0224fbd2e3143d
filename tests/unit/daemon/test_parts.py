"""The parts of the daemon that need no daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.controllers.runtime.metrics import ControllerMetrics
from carmel.daemon import logs
from carmel.daemon.base import check_database
from carmel.daemon.guard import GuardedStore
from carmel.daemon.lock import StateLock
from carmel.daemon.measures import families, node_cpu
from carmel.daemon.notify import ServiceManager
from carmel.daemon.options import Role, parse_options
from carmel.errors import Refused, Unavailable
from carmel.paths import Paths
from carmel.resources.core import SECRET
from tests.stores import open_store


def test_options_win_over_the_environment(tmp_path: Path) -> None:
    env = {"CARMEL_STATE_DIR": "/env/state", "CARMEL_RUN_DIR": "/env/run", "CARMEL_HTTPS_PORT": "7443", "HOME": "/h"}
    options = parse_options(["--run-dir", str(tmp_path)], env)
    assert (options.paths.state, options.paths.runtime, options.https_port) == (Path("/env/state"), tmp_path, 7443)
    assert options.log_level == "info"
    assert options.role is Role.HOST
    assert parse_options(["--role", "smartnic"], env).role is Role.SMARTNIC
    assert parse_options([], {**env, "CARMEL_ROLE": "smartnic"}).role is Role.SMARTNIC
    assert (options.https_address, options.https_names) == ("127.0.0.1", ())
    wide = {**env, "CARMEL_HTTPS_ADDRESS": "0.0.0.0", "CARMEL_HTTPS_NAMES": "pi.lan,10.0.0.7"}
    assert parse_options([], wide).https_address == "0.0.0.0"
    assert parse_options([], wide).https_names == ("pi.lan", "10.0.0.7")
    assert parse_options(["--https-name", "a", "--https-name", "b.c"], wide).https_names == ("a", "b.c")


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        (["--https-port", "70000"], {}),
        (["--https-port", "http"], {}),
        (["--https-address", "localhost"], {}),
        (["--https-name", "a b"], {}),
        ([], {"CARMEL_HTTPS_NAMES": "a,-b"}),
        (["--log-level", "loud"], {}),
        ([], {"CARMEL_LOG_LEVEL": "loud"}),
        ([], {"CARMEL_HTTPS_PORT": "x"}),
        (["--role", "router"], {}),
        ([], {"CARMEL_ROLE": "router"}),
        (["--nonsense"], {}),
    ],
)
def test_wrong_options_are_a_usage_error(
    argv: list[str], env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(argv, {"HOME": "/h", **env})
    assert ended.value.code == 2
    assert "usage: carmeld" in capsys.readouterr().err


def test_lock_is_for_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = StateLock(path)
    with pytest.raises(Refused, match=f"pid {os.getpid()}") as refused:
        StateLock(path)
    assert (refused.value.code, refused.value.exit_status) == ("DaemonRunning", 5)
    assert first.is_in_place()
    path.unlink()
    assert not first.is_in_place()
    first.release()
    StateLock(path).release()


def test_service_manager_is_told(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(5)
        manager = ServiceManager({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "20000000"})
        assert manager.watchdog_seconds == 10
        manager.ready("serving")
        assert channel.recv(100) == b"READY=1\nSTATUS=serving"
        manager.alive()
        assert channel.recv(100) == b"WATCHDOG=1"
    # Nobody listens any more; and without a manager there is nobody to tell.
    manager.stopping()
    ServiceManager({}).ready("")
    assert ServiceManager({"WATCHDOG_USEC": "1"}).watchdog_seconds is None


async def test_guarded_store_acknowledges_nothing_without_its_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = [True]
    async with open_store(tmp_path) as store:
        guarded = GuardedStore(store, lambda: there[0], "/state")
        secret = {"metadata": {"name": "a", "namespace": "default"}}
        await guarded.create(SECRET, dict(secret))
        there[0] = False
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                await guarded.create(SECRET, {"metadata": {"name": "b", "namespace": "default"}})
            assert (refused.value.code, refused.value.retryable) == ("StateDirectoryGone", False)
        with pytest.raises(Unavailable):
            await guarded.delete(SECRET, "default", "a")
        assert (await guarded.get(SECRET, "default", "a")).name == "a"
        assert [one.name for one in (await guarded.list(SECRET)).items] == ["a"]
    # Told once, not at every try.
    assert sum(record.levelno == logging.CRITICAL for record in caplog.records) == 1


def test_a_missing_database_beside_launch_records(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "r", tmp_path / "c")
    check_database(paths)
    record = paths.machine("u").launch_record
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(Refused) as refused:
        check_database(paths)
    assert refused.value.code == "DatabaseMissing"
    paths.database.touch()
    check_database(paths)


def test_metrics_of_all_controllers_are_one_family_each() -> None:
    first, second = ControllerMetrics("a"), ControllerMetrics("b")
    first.observe(0.003, failed=False)
    second.observe(70.0, failed=True)
    found = {family.name: family for family in families([*first.samples(), *second.samples()])}
    assert [one.value for one in found["carmel_controller_passes_total"].samples] == [1, 1]
    assert [one.value for one in found["carmel_controller_errors_total"].samples] == [0, 1]
    buckets = {
        dict(one.labels)["le"]: one.value
        for one in found["carmel_controller_pass_seconds"].samples
        if one.name.endswith("_bucket") and dict(one.labels)["controller"] == "b"
    }
    assert (buckets["60.0"], buckets["+Inf"]) == (0, 1)


def test_the_machines_cpu_time_is_measured(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    a_second = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  {3 * a_second} 0 {a_second} {9 * a_second} 0 0 {a_second // 2} 0 0 0\ncpu0 1 2 3 4\n")
    found = {dict(one.labels)["mode"]: one.value for one in node_cpu(stat).samples}
    assert (found["user"], found["system"], found["idle"], found["softirq"]) == (3, 1, 9, 0.5)
    assert node_cpu(tmp_path / "nothing").samples == ()


async def _tail(files: list[Path], **options: int | None) -> bytes:
    chosen = {"lines": None, "count": None, **options}
    return b"".join([chunk async for chunk in logs.read_tail(files, **chosen)])


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"")), max_size=6), max_size=3),
    ended=st.booleans(),
    lines=st.integers(min_value=0, max_value=12),
    count=st.one_of(st.none(), st.integers(min_value=0, max_value=40)),
)
def test_tail_is_that_of_the_files_joined(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[bytes]], ended: bool, lines: int, count: int | None
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    texts = [b"".join(line + b"\n" for line in part) for part in parts]
    if texts and not ended:
        texts[-1] = texts[-1].removesuffix(b"\n")
    files = []
    for index, text in enumerate(texts):
        files.append(folder / str(index))
        files[-1].write_bytes(text)
    whole = b"".join(texts)
    by_newline = whole.split(b"\n")
    kept = [line + b"\n" for line in by_newline[:-1]] + ([by_newline[-1]] if by_newline[-1] else [])
    expected = b"".join(kept[-lines:] if lines else [])
    if count is not None and len(expected) > count:
        expected = expected[len(expected) - count :]
    assert asyncio.run(_tail(files, lines=lines, count=count)) == expected


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def test_follow_goes_on_after_the_log_was_emptied_and_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    await asyncio.to_thread(log.write_bytes, b"old\n")
    following = logs.follow(log, 4)
    first = asyncio.ensure_future(anext(following))
    # Appended to: a file that is written anew is empty for a moment, which is another thing.
    await asyncio.to_thread(append, log, b"new\n")
    assert await first == b"new\n"
    await asyncio.to_thread(log.write_bytes, b"x")
    assert await anext(following) == b"x"
    await asyncio.to_thread(log.unlink)
    assert [chunk async for chunk in following] == []
