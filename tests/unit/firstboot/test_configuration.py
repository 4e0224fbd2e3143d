"""carmel.yaml: what is understood, and what is said of what is not."""

from __future__ import annotations

import contextlib
import re
from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from carmel.errors import CarmelError, Invalid, TooLarge
from carmel.firstboot.configuration import MAXIMUM_BYTES, BondMode, HostConfiguration, parse

_TOKEN = "a" * 32
_WHOLE = f"""
hostName: rack-3
ssh: {{authorizedKeys: ["ssh-ed25519 AAAAC3Nz me@laptop"]}}
network:
  interfaces: [eno1, "enp*"]
  bond: {{mode: 802.3ad}}
  vlan: 7
  mtu: 9000
  addresses: [192.0.2.10/24, "2001:db8::2/64"]
  gateway: 192.0.2.1
  nameservers: [192.0.2.53]
  searchDomains: [example.org]
time: {{servers: [ntp.example.org, 192.0.2.123]}}
api: {{listen: 0.0.0.0, port: 17443, names: [rack-3.example.org], adminToken: {_TOKEN}}}
console: {{passwordHash: $6$abc$def.}}
join: {{url: "https://cluster.example.org:6443", token: t}}
"""


def refused(text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse(text.encode())
    return caught.value


def test_every_field_is_read() -> None:
    found = parse(_WHOLE.encode())
    assert found.host_name == "rack-3"
    assert found.network.bond is not None
    assert found.network.bond.mode is BondMode.LACP
    assert [str(one) for one in found.network.addresses] == ["192.0.2.10/24", "2001:db8::2/64"]
    assert found.time.servers == ["ntp.example.org", "192.0.2.123"]
    assert found.api.admin_token == _TOKEN
    assert found.join is not None


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "\ufeffhostName: carmel\n"])
def test_nothing_is_all_defaults(text: str) -> None:
    assert parse(text.encode()).model_copy(update={"host_name": None}) == HostConfiguration()


def test_the_example_is_right_also_when_all_of_it_is_taken() -> None:
    text = (resources.files("carmel.firstboot") / "carmel.yaml.example").read_text("utf-8")
    assert parse(text.encode()) == HostConfiguration()
    # What looks like a field loses its comment sign; what is explained keeps it.
    lines = [line if re.match(r"# \S", line) else line.removeprefix("#") for line in text.splitlines()]
    taken = "\n".join(lines)
    taken = taken.replace("AAAA... ", "AAAA ").replace("adminToken: ...", f"adminToken: {_TOKEN}")
    taken = taken.replace("$6$...", "$6$a$b").replace("token: ...", "token: t")
    found = parse(taken.encode())
    assert found.model_fields_set == set(HostConfiguration.model_fields)
    assert found.network.vlan == 100


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("hostName: Upper", "hostName"),
        ("hostName: 7", "hostName"),
        ("hostName: 'a\nb'", "hostName"),
        ("hostname: a", "hostname"),
        ("ssh: {authorizedKeys: [hello]}", "ssh.authorizedKeys"),
        ('ssh: {authorizedKeys: ["ssh-ed25519 AAAA\\nssh-ed25519 BBBB"]}', "ssh.authorizedKeys"),
        ("ssh: {authorizedKeys: ['command=\"/bin/sh\" ssh-ed25519 AAAA']}", "ssh.authorizedKeys"),
        ("network: {interfaces: ['a b']}", "network.interfaces[0]"),
        ('network: {interfaces: ["eno1\\nName=lo"]}', "network.interfaces[0]"),
        ("network: {vlan: 4095}", "network.vlan"),
        ("network: {bond: {mode: balance-rr}, interfaces: [a]}", "network.bond.mode"),
        ("network: {bond: {}}", "network"),
        ("network: {interfaces: [eno1, '00:11:22:33:44:55']}", "network"),
        ("network: {addresses: [192.0.2.1]}", "network.addresses[0]"),
        ("network: {addresses: [127.0.0.1/8]}", "network"),
        ("network: {gateway: 192.0.2.1}", "network"),
        ("network: {addresses: [192.0.2.10/24], gateway: 198.51.100.1}", "network"),
        ("network: {mtu: 100}", "network.mtu"),
        ("time: {servers: ['a b']}", "time.servers[0]"),
        ("api: {listen: everywhere}", "api.listen"),
        ("api: {port: 80}", "api.port"),
        ("api: {adminToken: short}", "api.adminToken"),
        ("console: {passwordHash: secret}", "console.passwordHash"),
        ("join: {url: 'http://a', token: t}", "join.url"),
        ("join: {url: 'https://a'}", "join.token"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(text: str, field: str) -> None:
    found = refused(text)
    assert field in [cause.field for cause in found.causes]
    assert field in found.message
    assert found.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "list of fields"),
        ("a: &x [1]\nb: *x", "alias"),
        ("hostName: a\nhostName: b", "line 2"),
        ("a:\n\t- b", "line 2"),
        ("[" * 100, "nested"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("? [a]\n: b", "no name"),
    ],
)
def test_what_is_no_list_of_fields_is_said_so(text: str, words: str) -> None:
    assert words in refused(text).message


def test_no_value_is_ever_quoted_in_a_message() -> None:
    for text in ("api: {adminToken: hunter2}", "join: {url: hunter2, token: ''}", "console: {passwordHash: hunter2}"):
        found = refused(text)
        assert "hunter2" not in f"{found.message} {found.hint} {found.causes}"


def test_more_than_64_kib_is_not_even_parsed() -> None:
    with pytest.raises(TooLarge):
        parse(b"#" * (MAXIMUM_BYTES + 1))
    assert parse(b"#" * MAXIMUM_BYTES) == HostConfiguration()


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(CarmelError):
        assert isinstance(parse(content), HostConfiguration)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*HostConfiguration.model_json_schema()["properties"], "x"]), _VALUES))
def test_any_yaml_is_read_or_refused(value: object) -> None:
    with contextlib.suppress(CarmelError):
        assert isinstance(parse(yaml.safe_dump(value).encode()), HostConfiguration)
