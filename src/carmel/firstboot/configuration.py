"""``carmel.yaml``: its fields, their limits, and reading it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Annotated, Any

import yaml
from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from carmel.errors import Cause, Invalid, TooLarge
from carmel.firstboot.record import FILE
from carmel.resources.base import DNS_LABEL, DNS_SUBDOMAIN, Model

MAXIMUM_BYTES = 64 * 1024
_MAXIMUM_DEPTH = 8
_KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp")

HostName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=rf"^{DNS_LABEL}$")]
DomainName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=rf"^{DNS_SUBDOMAIN}$")]
# A pattern of systemd.network(5): a name of at most 15 bytes (IFNAMSIZ), in which * and ? stand for others.
Interface = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9*?][A-Za-z0-9_.*?-]{0,14}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5})$")
]
Token = Annotated[str, StringConstraints(min_length=32, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]


def _ip_address(value: object) -> IPv4Address | IPv6Address:
    with contextlib.suppress(ValueError):
        if isinstance(value, str):
            return ip_address(value)
    raise ValueError("must be an IP address, such as 192.0.2.1")


def _ip_interface(value: object) -> IPv4Interface | IPv6Interface:
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and "/" in value:
            return ip_interface(value)
    raise ValueError("must be an IP address with its prefix length, such as 192.0.2.10/24")


def _server_name(value: object) -> str:
    if isinstance(value, str) and len(value) <= 253 and re.fullmatch(DNS_SUBDOMAIN, value):
        return value
    with contextlib.suppress(ValueError):
        return str(_ip_address(value))
    raise ValueError("must be a name in lower case or an IP address, such as ntp.example.org")


IpAddress = Annotated[IPv4Address | IPv6Address, PlainValidator(_ip_address)]
IpInterface = Annotated[IPv4Interface | IPv6Interface, PlainValidator(_ip_interface)]
ServerName = Annotated[str, PlainValidator(_server_name)]


class _Section(Model):
    """A field that nobody knows is a mistake to be told, not dropped."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class BondMode(StrEnum):
    """As systemd.netdev(5) names them: those that need no settings of their own."""

    ACTIVE_BACKUP = "active-backup"
    LACP = "802.3ad"
    BALANCE_ALB = "balance-alb"


class Bond(_Section):
    """Several cards as one."""

    mode: BondMode = BondMode.ACTIVE_BACKUP


class Network(_Section):
    """The management network: cards, bond and VLAN that carry it, and the host's addresses there."""

    interfaces: list[Interface] = Field(default=[], max_length=16)
    bond: Bond | None = None
    vlan: int | None = Field(default=None, ge=1, le=4094)
    mtu: int | None = Field(default=None, ge=1280, le=9216)
    addresses: list[IpInterface] = Field(default=[], max_length=16)
    gateway: IpAddress | None = None
    nameservers: list[IpAddress] = Field(default=[], max_length=8)
    search_domains: list[DomainName] = Field(default=[], max_length=8)

    @model_validator(mode="after")
    def _consistent(self) -> Network:
        if self.bond is not None and not self.interfaces:
            raise ValueError("a bond needs to be told its interfaces")
        if len({":" in one for one in self.interfaces}) > 1:
            raise ValueError("name all interfaces, or give all by their MAC addresses: not both")
        for address in self.addresses:
            if address.ip.is_loopback or address.ip.is_multicast or address.ip.is_unspecified:
                raise ValueError(f"{address} is no address that a host can have")
        if self.gateway is not None:
            if not self.addresses:
                raise ValueError("a gateway goes with addresses: DHCP brings its own")
            if not self.gateway.is_link_local and not any(self.gateway in one.network for one in self.addresses):
                raise ValueError(f"the gateway {self.gateway} is in none of the addresses' networks")
        return self


class Ssh(_Section):
    """Who may log in as root."""

    authorized_keys: list[str] = Field(default=[], max_length=64)

    @field_validator("authorized_keys")
    @classmethod
    def _public_keys(cls, keys: list[str]) -> list[str]:
        for number, key in enumerate(keys, start=1):
            words = key.split()
            if len(key) > 8192 or not key.isprintable():
                raise ValueError(f"key {number} is longer than 8192 letters or has some that cannot be printed")
            if len(words) < 2 or not words[0].startswith(_KEY_TYPES) or not re.fullmatch(r"[A-Za-z0-9+/=]+", words[1]):
                raise ValueError(f"key {number} is no public key, such as 'ssh-ed25519 AAAA... name'")
        return [key.strip() for key in keys]


class Time(_Section):
    """Where the time comes from (NTP)."""

    servers: list[ServerName] = Field(default=[], max_length=8)


class Api(_Section):
    """Where the API listens, what it is called by from elsewhere, and the administrator's token."""

    listen: IpAddress | None = None
    port: int | None = Field(default=None, ge=1024, le=65535)
    names: list[ServerName] = Field(default=[], max_length=16)
    admin_token: Token | None = None


class Console(_Section):
    """The machine's own keyboard and screen."""

    # crypt(5): yescrypt or SHA-512.
    password_hash: str | None = Field(default=None, max_length=256, pattern=r"^\$(6|y)\$[./A-Za-z0-9=,$]+$")


class Join(_Section):
    """The cluster that the host is to belong to. Kept, not used yet."""

    url: str = Field(max_length=2048, pattern=r"^https://[^\s/]+(/\S*)?$")
    token: str = Field(min_length=1, max_length=4096, pattern=r"^[!-~]+$")


class HostConfiguration(_Section):
    """The whole file. An empty one is all defaults."""

    host_name: HostName | None = None
    ssh: Ssh = Field(default_factory=Ssh)
    network: Network = Field(default_factory=Network)
    time: Time = Field(default_factory=Time)
    api: Api = Field(default_factory=Api)
    console: Console = Field(default_factory=Console)
    join: Join | None = None


def parse(content: bytes) -> HostConfiguration:
    """The configuration. Raises ``TooLarge``, or ``Invalid`` (a cause each mistake) that never quotes a value.

    Values may be secrets, and messages are shown on a screen that anybody sees.
    """
    if len(content) > MAXIMUM_BYTES:
        raise TooLarge(f"{FILE} has more than {MAXIMUM_BYTES // 1024} KiB", code="ConfigurationTooLarge")
    value = _load(content)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _unreadable("it is not a list of fields and values")
    try:
        return HostConfiguration.model_validate(value)
    except ValidationError as exc:
        causes = [
            Cause(_path(error["loc"]), _sentence(error["type"], error["msg"]))
            for error in exc.errors(include_url=False, include_input=False)
        ]
        listed = "; ".join(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes[:8])
        raise Invalid(
            f"{FILE} is wrong: {listed}",
            causes=causes,
            code="ConfigurationInvalid",
            hint=f"correct {FILE} on the EFI system partition and boot again; {FILE}.example shows every field",
        ) from None


class _Loader(yaml.SafeLoader):
    """Text, numbers, truth, lists and mappings. No aliases, which could grow without bounds; no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _unreadable("it has an alias (*name), which is not understood here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001 - its base's
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                raise _unreadable(f"line {key.start_mark.line + 1}: a field stands there twice, or is no name")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# A host name such as 2026-11-23 is text, and so is 0x10.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load(content: bytes) -> Any:
    try:
        # Editors of Windows put a mark before the first letter.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable("it is not text in UTF-8") from None
    try:
        _check_depth(yaml.parse(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise _unreadable(f"{place}{exc.problem or 'no YAML'}") from None
    except (yaml.YAMLError, ValueError) as exc:
        raise _unreadable(" ".join(str(exc).split())[:120]) from None


def _check_depth(events: Iterable[yaml.Event]) -> None:
    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAXIMUM_DEPTH:
            raise _unreadable("its fields are nested too deeply")


def _unreadable(why: str) -> Invalid:
    return Invalid(
        f"{FILE} cannot be read: {why}",
        code="ConfigurationUnreadable",
        hint=f"correct {FILE} on the EFI system partition and boot again",
    )


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        # Where several types would do, pydantic adds the type it tried.
        if isinstance(part, str) and not re.fullmatch(r"[a-z][A-Za-z]*", part):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _sentence(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "missing":
        return "is required"
    if kind == "string_pattern_mismatch":
        return "is not of the form that this field has"
    said = message.removeprefix("Value error, ").replace("Input should", "must").replace("String should", "must")
    said = said.replace("List should", "must").replace("value is not a", "must be a")
    return said[0].lower() + said[1:] if said[:1].isupper() and not said[1:2].isupper() else said
