"""The listeners: who is let in, what they refuse, and how they stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from carmel.apiserver import connections
from carmel.apiserver.channels import SUBPROTOCOL
from carmel.apiserver.connections import Peers
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.server import ServerConfig
from carmel.errors import Refused
from carmel.run import SystemRunner
from tests.unit.apiserver.harness import EchoConsole, Harness, dropped, running_server

CONSOLE = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines/{}/console"
WATCH = b"GET /api/v1/namespaces?watch=true HTTP/1.1\r\nHost: x\r\n\r\n"
GET = b"GET /version HTTP/1.1\r\nHost: x\r\n%b\r\n"


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_server(tmp_path) as running:
        yield running


def trusting(harness: Harness) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(harness.paths.pki / "ca.crt"))


async def unix(harness: Harness) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(harness.paths.api_socket))


async def https(harness: Harness, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", harness.server.https_port, ssl=context)


async def say(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """Send bytes and read until the server closes, or its answer is whole."""
    reader, writer = streams
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    return head + await reader.readexactly(int(line.partition(b":")[2]))
            return head
    finally:
        writer.close()


async def test_the_socket_knows_its_owner(harness: Harness) -> None:
    assert (await say(await unix(harness), GET % b"")).startswith(b"HTTP/1.1 200")
    mode = stat.S_IMODE(harness.paths.api_socket.stat().st_mode)
    assert mode == (0o666 if os.geteuid() == 0 else 0o600)


async def test_https_wants_a_token(harness: Harness) -> None:
    context = trusting(harness)
    assert (await say(await https(harness, context), GET % b"")).startswith(b"HTTP/1.1 401")
    header = b"Authorization: Bearer " + harness.token.encode() + b"\r\n"
    assert (await say(await https(harness, context), GET % header)).startswith(b"HTTP/1.1 200")


async def test_old_tls_and_plain_text_are_refused(harness: Harness) -> None:
    context = trusting(harness)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        await https(harness, context)
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.server.https_port)
    writer.write(GET % b"")
    async with asyncio.timeout(15):
        assert b"HTTP" not in await reader.read(1000)
    writer.close()


async def test_keys_are_private_and_certificates_do_not_depend_on_the_clock(harness: Harness) -> None:
    pki = harness.paths.pki
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    for name in ("ca.key", "server.key", "admin.token", "https.port"):
        assert stat.S_IMODE((pki / name).stat().st_mode) == 0o600, name
    _, writer = await https(harness, trusting(harness))
    certificate: dict[str, Any] = writer.get_extra_info("peercert")
    writer.close()
    assert ssl.cert_time_to_seconds(certificate["notBefore"]) < 7 * 86400
    assert ssl.cert_time_to_seconds(certificate["notAfter"]) > time.time() + 10 * 365 * 86400
    assert {value for _, value in certificate["subjectAltName"]} >= {"localhost", "127.0.0.1"}


async def test_a_nic_listens_before_its_address_is_there(tmp_path: Path) -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    config = ServerConfig(https_address="192.0.2.77", before_its_address=True)
    if sys.platform != "linux":
        pytest.skip("needs IP_FREEBIND")
    async with running_server(tmp_path, config) as harness:
        assert harness.server.url.startswith("https://192.0.2.77:")


async def test_a_certificate_near_its_end_is_made_anew_by_the_same_authority(tmp_path: Path) -> None:
    async with running_server(tmp_path) as first:
        credentials = Credentials.of(first.paths)
    authority, certificate = credentials.authority.read_bytes(), credentials.certificate.read_bytes()
    async with running_server(tmp_path):
        assert credentials.certificate.read_bytes() == certificate
    (credentials.folder / "server.json").write_text(json.dumps({"notAfter": int(time.time()) + 86400}))
    async with running_server(tmp_path) as again:
        assert credentials.authority.read_bytes() == authority
        assert credentials.certificate.read_bytes() != certificate
        assert again.token == first.token
        (await https(again, trusting(again)))[1].close()


@pytest.mark.parametrize("damaged", ["server.key", "server.crt", "server.json", "ca.key"])
async def test_damaged_key_material_is_replaced(tmp_path: Path, damaged: str) -> None:
    async with running_server(tmp_path) as first:
        pki = first.paths.pki
    (pki / damaged).write_bytes(b"\x00torn\xff")
    if damaged == "ca.key":
        (pki / "server.json").unlink()
    async with running_server(tmp_path) as again:
        (await https(again, trusting(again)))[1].close()


async def test_the_port_is_kept(tmp_path: Path) -> None:
    async with running_server(tmp_path) as first:
        port = first.server.https_port
        assert first.paths.https_port_file.read_text() == f"{port}\n"
    async with running_server(tmp_path) as again:
        assert again.server.https_port == port


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"port {port} .* in use") as refused:
            async with running_server(tmp_path, ServerConfig(https_port=port)):
                pass
        assert refused.value.code == "PortInUse"
        assert not (tmp_path / "run" / "api.sock").exists()
        # The port of the last run was not asked for by anybody: a start is worth more than the same port.
        (tmp_path / "state" / "pki" / "https.port").write_text(f"{port}\n")
        async with running_server(tmp_path) as harness:
            assert harness.server.https_port != port


async def test_listens_more_widely_only_when_told(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", harness.server.https_port)
    config = ServerConfig(https_address="127.0.0.2", https_names=("pi.lan", "10.1.2.3"))
    folder = tmp_path / "wide"
    folder.mkdir()
    async with running_server(folder, config) as wide:
        port = wide.server.https_port
        assert wide.server.url == f"https://127.0.0.2:{port}"
        # The certificate is good for the address itself and for the names that were given.
        for name in ("127.0.0.2", "pi.lan", "10.1.2.3", "localhost"):
            streams = await asyncio.open_connection("127.0.0.2", port, ssl=trusting(wide), server_hostname=name)
            assert (await say(streams, GET % b"")).startswith(b"HTTP/1.1 401")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.2", port, ssl=trusting(wide), server_hostname="other.lan")


async def test_a_name_that_is_new_gets_another_certificate_of_the_same_authority(tmp_path: Path) -> None:
    async with running_server(tmp_path) as first:
        trust = trusting(first)
    everywhere = ServerConfig(https_address="0.0.0.0", https_names=("pi.lan",))
    async with running_server(tmp_path, everywhere) as again:
        port = again.server.https_port
        assert again.server.url == f"https://127.0.0.1:{port}"
        streams = await asyncio.open_connection("127.0.0.3", port, ssl=trust, server_hostname="pi.lan")
        assert (await say(streams, GET % b"")).startswith(b"HTTP/1.1 401")
        made = (again.paths.pki / "server.crt").read_bytes()
    async with running_server(tmp_path, everywhere) as last:
        assert (last.paths.pki / "server.crt").read_bytes() == made


async def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"192\.0\.2\.1 is not an address of this machine") as refused:
        async with running_server(tmp_path, ServerConfig(https_address="192.0.2.1")):
            pass
    assert refused.value.code == "AddressNotUsable"


async def test_one_daemon_one_socket(harness: Harness, tmp_path: Path) -> None:
    second = tmp_path / "second"
    (second / "run").parent.mkdir()
    (second / "run").symlink_to(harness.paths.runtime)
    with pytest.raises(Refused) as refused:
        async with running_server(second):
            pass
    assert refused.value.code == "SocketInUse"
    assert (await say(await unix(harness), GET % b"")).startswith(b"HTTP/1.1 200")


async def test_a_socket_left_by_a_killed_daemon(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "run" / "api.sock"))
    async with running_server(tmp_path) as harness:
        assert (await say(await unix(harness), GET % b"")).startswith(b"HTTP/1.1 200")
    (tmp_path / "run" / "api.sock").write_text("precious")
    with pytest.raises(Refused):
        async with running_server(tmp_path):
            pass
    assert (tmp_path / "run" / "api.sock").read_text() == "precious"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT /api/v1/namespaces/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b" " * 600_000, 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
)
async def test_hostile_requests(harness: Harness, request_bytes: bytes, status: int) -> None:
    answer = await say(await unix(harness), request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:200]
    assert (await say(await unix(harness), GET % b"")).startswith(b"HTTP/1.1 200")


async def test_whoever_says_nothing_is_let_go(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    for said in (b"", b"GET / HTTP/1.1\r\nX: "):
        reader, writer = await unix(harness)
        writer.write(said)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


def test_no_peer_takes_all_places() -> None:
    peers = Peers(owner_uid=1000)
    entered = 0
    while peers.enter(2000):
        entered += 1
    assert entered == connections.MAX_CONNECTIONS_PER_PEER
    assert peers.enter(1000)
    assert peers.enter(0)
    peers.leave(2000)
    assert peers.enter(2000)


async def test_stop_ends_what_is_open(tmp_path: Path) -> None:
    async with running_server(tmp_path) as harness:
        harness.streams.consoles["default/web"] = console = EchoConsole()
        reader, writer = await unix(harness)
        writer.write(WATCH)
        await reader.readuntil(b"default")
        idle_reader, idle_writer = await unix(harness)
        stuck_reader, stuck_writer = await unix(harness)
        stuck_writer.write(b"PUT /api/v1/namespaces/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        socket_path = str(harness.paths.api_socket)
        client = await unix_connect(socket_path, f"ws://localhost{CONSOLE.format('web')}", compression=None)
        began = time.monotonic()
        await harness.server.stop()
        assert time.monotonic() - began < 9
        rest = await reader.read()
        assert rest.endswith(b"0\r\n\r\n")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert console.closed
        for each in (idle_reader, stuck_reader):
            try:
                await each.read()
            except ConnectionError:
                continue
        for each_writer in (writer, idle_writer, stuck_writer):
            each_writer.close()
        assert not harness.paths.api_socket.exists()


async def test_the_console(harness: Harness) -> None:
    harness.streams.consoles["default/web"] = console = EchoConsole()
    url = f"wss://127.0.0.1:{harness.server.https_port}{CONSOLE.format('web')}"
    headers = {"Authorization": f"Bearer {harness.token}"}
    async with connect(
        url,
        ssl=trusting(harness),
        additional_headers=headers,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        proxy=None,
    ) as client:
        assert client.subprotocol == SUBPROTOCOL
        await client.send(b"\x00\xffls\n")
        assert await client.recv() == b"\x00\xffls\n"
        await client.send("text")
        assert await client.recv() == b"text"
        await client.send(b"exit")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    assert console.closed


async def test_a_dropped_console_says_so(harness: Harness) -> None:
    harness.streams.consoles["default/web"] = console = EchoConsole()
    console.output.put_nowait(dropped())
    async with unix_connect(
        str(harness.paths.api_socket), f"ws://localhost{CONSOLE.format('web')}", compression=None
    ) as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, "too slow" in closed.value.rcvd.reason) == (1013, True)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (CONSOLE.format("gone"), {"Authorization": "TOKEN"}, 404),
        (CONSOLE.format("gone"), {}, 401),
        ("/version", {"Authorization": "TOKEN"}, 404),
        (CONSOLE.format("%2e%2e"), {"Authorization": "TOKEN"}, 404),
    ],
)
async def test_refused_consoles_are_a_status(harness: Harness, path: str, headers: dict[str, str], status: int) -> None:
    filled = dict.fromkeys(headers, f"Bearer {harness.token}")
    url = f"wss://127.0.0.1:{harness.server.https_port}{path}"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, ssl=trusting(harness), additional_headers=filled, proxy=None):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["code"] == status


async def test_logs_and_uploads(harness: Harness) -> None:
    harness.streams.log = [b"one\n", b"two\n"]
    machine = b"/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines/web"
    reader, writer = await unix(harness)
    writer.write(b"GET %b/log?tailLines=2&follow=true HTTP/1.1\r\nHost: x\r\n\r\n" % machine)
    await reader.readuntil(b"two\n")
    harness.streams.follow.set()
    assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
    writer.close()
    assert (harness.streams.tails[0].lines, harness.streams.tails[0].follow) == (2, True)
    image = b"/apis/carmel.dev/v1alpha1/namespaces/default/images/disk/upload"
    body = os.urandom(300_000)
    request = b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (image, len(body), body)
    assert (await say(await unix(harness), request)).startswith(b"HTTP/1.1 404")  # nobody made the Image
    assert harness.streams.uploads["default/disk"] == (body, len(body))
    chunked = b"PUT %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % image
    await say(await unix(harness), chunked)
    assert harness.streams.uploads == {"default/disk": (b"abc", None)}


async def test_a_download_says_how_long_it_is_and_breaks_off_when_it_is_less(harness: Harness) -> None:
    harness.streams.log = [b"abc", b"defg"]
    request = b"GET /apis/carmel.dev/v1alpha1/namespaces/default/images/disk/download HTTP/1.1\r\nHost: x\r\n\r\n"
    harness.streams.promised = 7
    answer = await say(await unix(harness), request)
    assert b"content-length: 7" in answer.lower()
    assert answer.endswith(b"\r\n\r\nabcdefg")
    harness.streams.promised = 8
    reader, writer = await unix(harness)
    writer.write(request)
    # The connection is closed before the eighth byte: no client takes that for the whole.
    assert (await reader.read()).endswith(b"\r\n\r\nabcdefg")
    writer.close()


async def test_a_refused_upload_is_answered_before_its_body(harness: Harness) -> None:
    harness.streams.upload_error = Refused("the datastore is full", code="DatastoreFull")
    image = b"/apis/carmel.dev/v1alpha1/namespaces/default/images/disk/upload"
    answer = await say(
        await unix(harness), b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc" % image
    )
    assert answer.startswith(b"HTTP/1.1 422")
    assert b"DatastoreFull" in answer


async def test_certificates_are_made_whole_or_not_at_all(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "pki")
    await credentials.renew(SystemRunner())
    assert {path.name for path in credentials.folder.iterdir()} == {
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "server.json",
    }
    assert credentials.is_current(time.time())
    assert credentials.is_current(0), "a clock in 1970 is no reason to do it again"
