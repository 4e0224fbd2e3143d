"""``carmel ssh`` waits for the guest's server: the host's port is open long before it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from carmel.cli import ssh
from carmel.errors import TimedOut


@contextmanager
def forwarded(answers: list[bytes]) -> Iterator[int]:
    """A port that answers each connection with the next of ``answers``; nothing at all closes it at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    if answer and connection.recv(64).startswith(b"SSH-2.0-"):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(20)
        assert not thread.is_alive()


def test_a_guest_that_boots_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PAUSE_SECONDS", 0.0)
    with forwarded([b"", b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"]) as port:
        ssh.await_server("127.0.0.1", port, "web", 20)


def test_what_never_answers_is_told_with_a_way_out() -> None:
    with forwarded([b"220 mail"]) as port, pytest.raises(TimedOut) as caught:
        ssh.await_server("127.0.0.1", port, "web", 0)
    assert caught.value.code == "SshNotAnswering"
    assert "carmel console web" in (caught.value.hint or "")
