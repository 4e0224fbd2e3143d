"""Servers that are not there, not ours or not right."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carmel.client.api import Client
from carmel.client.endpoint import Context, HttpsEndpoint, UnixEndpoint
from carmel.client.troubles import connection_error
from carmel.errors import Forbidden, InternalError, NotFound, TimedOut, Unavailable

Server = Callable[[bytes], Client]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A client of a server that answers its first request by these bytes and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    threads: list[threading.Thread] = []
    clients: list[Client] = []

    def start(answer: bytes) -> Client:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        clients.append(Client(Context("local", UnixEndpoint(tmp_path / "s"))))
        return clients[-1]

    yield start
    for one in clients:
        one.close()
    for thread in threads:
        thread.join(10)
    listener.close()


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def test_no_socket_is_no_daemon(tmp_path: Path) -> None:
    with Client(Context("local", UnixEndpoint(tmp_path / "none"))) as client, pytest.raises(Unavailable) as caught:
        client.get_json("/version")
    assert caught.value.code == "DaemonNotRunning"
    assert "carmeld" in (caught.value.hint or "")


def test_a_socket_that_nobody_listens_on_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with Client(Context("local", UnixEndpoint(tmp_path / "dead"))) as client, pytest.raises(Unavailable) as caught:
        client.get_json("/version")
    assert caught.value.code == "DaemonNotRunning"


def test_a_socket_of_others_is_forbidden_with_what_to_do() -> None:
    error = connection_error(UnixEndpoint(Path("/run/carmel/api.sock")), PermissionError())
    assert isinstance(error, Forbidden)
    assert "group" in (error.hint or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket")
def test_permissions_are_told_apart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        (tmp_path / "s").chmod(0)
        with Client(Context("local", UnixEndpoint(tmp_path / "s"))) as client, pytest.raises(Forbidden):
            client.get_json("/version")


def test_a_server_that_is_silent_is_a_time_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with Client(Context("local", UnixEndpoint(tmp_path / "s"))) as client, pytest.raises(TimedOut):
            client.call("GET", "/version", seconds=0.1)


def test_answers_that_are_no_api_servers(server: Server) -> None:
    with pytest.raises(InternalError):
        server(http("200 OK", b"<html>")).get_json("/version")
    with pytest.raises(InternalError):
        server(http("200 OK", b"[]")).get_json("/version")
    with pytest.raises(NotFound) as caught:
        server(http("404 Not Found", b"no such page\nreally")).get_json("/version")
    assert caught.value.message == "no such page"
    with pytest.raises(Unavailable):
        server(b"hello\r\n\r\n").get_json("/version")
    with pytest.raises(Unavailable):
        server(b"").get_json("/version")


def test_a_tcp_port_that_nobody_listens_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Client(Context("x", HttpsEndpoint("127.0.0.1", port))) as client, pytest.raises(Unavailable) as caught:
        client.get_json("/version")
    assert caught.value.code == "ServerUnreachable"


def test_whoever_waits_is_cut_off_from_another_thread(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with listener, Client(Context("local", UnixEndpoint(tmp_path / "s"))) as client:
        caught: list[Exception] = []

        def ask() -> None:
            try:
                client.get_json("/version")
            except Unavailable as error:
                caught.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        connection, _ = listener.accept()
        with connection:
            # It has asked, and waits for an answer that never comes.
            assert connection.recv(65536)
            client.cut()
            asking.join(10)
        assert len(caught) == 1
        with pytest.raises(Unavailable):
            client.get_json("/version")
