"""Mutual TLS with certificates of a SmartNIC's own authority, by real listeners."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from carmel.apiserver.credentials import Credentials
from carmel.apiserver.pki import authority, client, main
from carmel.apiserver.server import Server, ServerConfig
from carmel.paths import Paths
from carmel.run import Command, ProgramFailed, SystemRunner
from tests.stores import open_store
from tests.unit.apiserver.harness import NAMESPACES, Harness, make_smartnic_app, running_server
from tests.unit.apiserver.test_server import GET, https, say, trusting

WHO = (
    b"POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: x\r\n%b"
    b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
LONG_AGO = timedelta(days=-9000)


class Nic:
    """A SmartNIC's server, and what it signs."""

    def __init__(self, server: Server, paths: Paths) -> None:
        self.server = server
        self.paths = paths

    def sign(self, host: str, lasts: timedelta = timedelta(days=30)) -> ssl.SSLContext:
        """What a host connects with that has this certificate."""
        pair = client(self.paths.pki, authority(self.paths.pki), host, lasts)
        context = ssl.create_default_context(cadata=pair["ca.crt"])
        file = self.paths.runtime / "pair.pem"
        file.write_text(pair["tls.crt"] + pair["tls.key"])
        context.load_cert_chain(file)
        return context

    async def ask(self, context: ssl.SSLContext, request: bytes) -> bytes:
        return await say(await https(self, context), request)  # type: ignore[arg-type]


@pytest.fixture
async def nic(tmp_path: Path) -> AsyncIterator[Nic]:
    paths = Paths(state=tmp_path / "state", runtime=tmp_path / "run", cache=tmp_path / "cache")
    paths.state.mkdir()
    async with open_store(paths.state, *NAMESPACES) as store:
        app = make_smartnic_app(store, paths).app
        server = Server(app, paths, SystemRunner(), ServerConfig(client_certificates=True))
        await server.start()
        yield Nic(server, paths)
        await server.stop()


async def test_a_host_comes_in_by_its_certificate(nic: Nic) -> None:
    answer = await nic.ask(nic.sign("web"), WHO % b"")
    assert answer.startswith(b"HTTP/1.1 201")
    assert b'"username":"system:host:web"' in answer


async def test_a_bearer_token_wins(nic: Nic) -> None:
    answer = await nic.ask(nic.sign("web"), WHO % b"Authorization: Bearer secret\r\n")
    assert b'"username":"carmel-admin"' in answer


async def test_administrators_need_no_certificate(nic: Nic) -> None:
    plain = ssl.create_default_context(cafile=str(nic.paths.pki / "ca.crt"))
    assert (await nic.ask(plain, GET % b"")).startswith(b"HTTP/1.1 401")
    assert (await nic.ask(plain, GET % b"Authorization: Bearer secret\r\n")).startswith(b"HTTP/1.1 200")


async def test_an_earlier_certificate_of_the_host_counts_no_more(nic: Nic) -> None:
    earlier = nic.sign("web")
    later = nic.sign("web")
    assert (await nic.ask(earlier, GET % b"")).startswith(b"HTTP/1.1 401")
    assert (await nic.ask(later, GET % b"")).startswith(b"HTTP/1.1 200")


async def test_an_expired_certificate_does_not_get_through_the_handshake(nic: Nic) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        await nic.ask(nic.sign("web", LONG_AGO), GET % b"")


async def test_nor_does_one_of_another_authority(nic: Nic, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    pair = client(stranger, authority(stranger), "web")
    (stranger / "pair.pem").write_text(pair["tls.crt"] + pair["tls.key"])
    context = ssl.create_default_context(cafile=str(nic.paths.pki / "ca.crt"))
    context.load_cert_chain(stranger / "pair.pem")
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        await nic.ask(context, GET % b"")


async def test_nor_the_servers_own(nic: Nic) -> None:
    """It is good for servers alone: who steals it is no host."""
    credentials = Credentials.of(nic.paths)
    context = ssl.create_default_context(cafile=str(credentials.authority))
    context.load_cert_chain(credentials.certificate, credentials.key)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        await nic.ask(context, GET % b"")


async def test_an_ordinary_host_asks_for_no_certificate(tmp_path: Path) -> None:
    async with running_server(tmp_path) as harness:
        assert isinstance(harness, Harness)
        pair = client(harness.paths.pki, authority(harness.paths.pki), "web")
        context = trusting(harness)
        (tmp_path / "pair.pem").write_text(pair["tls.crt"] + pair["tls.key"])
        context.load_cert_chain(tmp_path / "pair.pem")
        assert (await say(await https(harness, context), GET % b"")).startswith(b"HTTP/1.1 401")


async def test_the_child_process_that_signs(tmp_path: Path) -> None:
    argv: list[str | Path] = [Path(sys.executable), "-m", "carmel.apiserver.pki", tmp_path, "--client"]
    pair = json.loads((await SystemRunner().run(Command([*argv, "web", "--days", "3"]))).stdout)
    assert set(pair) == {"ca.crt", "tls.crt", "tls.key"}
    assert Credentials(tmp_path).host_certificate("web").read_text() == pair["tls.crt"]
    with pytest.raises(ProgramFailed, match="not a host's name"):
        await SystemRunner().run(Command([*argv, "../../admin"]))


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority(tmp_path)
    before = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "ca.key").unlink()
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--client", "web"])
    assert "the authority was made elsewhere" in capsys.readouterr().err
    assert (tmp_path / "ca.crt").read_bytes() == before


def test_the_hosts_key_does_not_stay_on_the_nic(tmp_path: Path) -> None:
    pair = client(tmp_path, authority(tmp_path), "web")
    key = pair["tls.key"].encode()
    assert all(key not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
