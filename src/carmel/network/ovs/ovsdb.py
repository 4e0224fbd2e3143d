"""Open vSwitch's database (RFC 7047), by ovsdbapp: reads what there is, does row steps. Nothing here decides anything.

ovsdbapp and what it needs are imported when the first connection is made: whoever has no Open vSwitch need not have
them, nor wait for them. It keeps a copy of the tables up to date in a thread of its own. A transaction ends when
ovs-vswitchd says that it has done it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from carmel.errors import Refused, Unavailable
from carmel.network.ovs.mtus import NotedMtu, NoteMtu
from carmel.network.ovs.rows import (
    OURS,
    AddBridge,
    AddPort,
    Bridge,
    Interface,
    Port,
    RemoveBridge,
    RemovePort,
    RowStep,
    Seen,
)

T = TypeVar("T")

_TABLES = {
    "Open_vSwitch": ("bridges", "cur_cfg", "next_cfg", "other_config", "ovs_version", "datapath_types"),
    "Bridge": ("name", "ports", "datapath_type", "fail_mode", "external_ids", "other_config"),
    "Port": ("name", "interfaces", "bond_mode", "lacp", "external_ids"),
    "Interface": ("name", "type", "options", "mtu_request", "ofport", "error", "external_ids"),
}
"""What is kept up to date: not the interfaces' statistics, which change all the time."""
_SECONDS = 15
_MTUS = "carmel-mtus"
"""The key of the external id: what an uplink had, then what it may have of us, in bytes."""


class Ovsdb:
    """``socket`` is ovsdb-server's, such as /run/openvswitch/db.sock. Used by one call at a time."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._thread = ThreadPoolExecutor(1, "ovsdb")
        self._api: Any = None

    async def observe(self) -> Seen:
        """Raises ``Refused`` (``NoOpenVSwitch``, ``PackageMissing``) or ``Unavailable``."""
        return await self._do(lambda api: _observe(api.tables))

    async def apply(self, steps: Sequence[RowStep]) -> None:
        """All in one transaction. Raises ``Unavailable`` (``SwitchNotReady``)."""
        if steps:
            await self._do(lambda api: _apply(api, steps))

    async def note(self, mtus: Sequence[NoteMtu]) -> None:
        """All in one transaction. Raises ``Unavailable`` (``SwitchNotReady``)."""
        if mtus:
            await self._do(lambda api: _note(api, mtus))

    async def set_other_config(self, **values: str) -> None:
        """Of the switch as a whole."""
        await self._do(lambda api: api.db_set("Open_vSwitch", ".", ("other_config", values)).execute(check_error=True))

    async def other_config(self) -> dict[str, str]:
        return await self._do(lambda api: dict(_root(api.tables).other_config))

    async def aclose(self) -> None:
        def close() -> None:
            if self._api is not None:
                self._api.ovsdb_connection.stop(_SECONDS)
                self._api = None

        await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[Any], T]) -> T:
        def in_thread() -> T:
            with _explained(self._socket):
                if self._api is None:
                    self._api = _connect(self._socket)
                return work(self._api)

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_thread)


def _connect(socket: Path) -> Any:
    if not socket.is_socket():
        raise Refused(
            f"there is no Open vSwitch here: {socket} is missing",
            code="NoOpenVSwitch",
            hint="install and start it (Debian: openvswitch-switch), or choose the Linux bridge",
        )
    try:
        # Late: 60 ms of work, and absent where Open vSwitch is not used.
        from ovsdbapp.backend.ovs_idl import connection, idlutils
        from ovsdbapp.schema.open_vswitch import impl_idl
    except ImportError as exc:
        raise Refused(
            f"Open vSwitch is spoken to by a Python package that is missing: {exc.name}",
            code="PackageMissing",
            hint="install it beside Carmel: pip install 'carmel[openvswitch]'",
        ) from exc
    # What fails is raised, and said where it was asked for. (ovs logs nothing unless it is told to.)
    logging.getLogger("ovsdbapp").setLevel(logging.CRITICAL)

    class Api(impl_idl.OvsdbIdl):  # type: ignore[misc]
        """ovsdbapp keeps the connection in the class: each gets a class of its own."""

        _ovsdb_connection = None

    where = f"unix:{socket}"
    helper = idlutils.get_schema_helper(where, Api.schema)
    for table, columns in _TABLES.items():
        helper.register_columns(table, list(columns))
    return Api(connection.Connection(connection.OvsdbIdl(where, helper), timeout=_SECONDS))


@contextlib.contextmanager
def _explained(socket: Path) -> Iterator[None]:
    try:
        yield
    except (Refused, Unavailable):
        raise
    except Exception as exc:
        # ovsdbapp and ovs raise plain RuntimeError, OSError and Exception.
        raise Unavailable(
            f"Open vSwitch does not do what it is told ({socket}): {str(exc).splitlines()[0] if str(exc) else exc!r}",
            code="SwitchNotReady",
            hint="see that ovsdb-server and ovs-vswitchd run: ovs-vsctl show",
        ) from exc


# -- reading ------------------------------------------------------------------------------------------------------
def _root(tables: Any) -> Any:
    return next(iter(tables["Open_vSwitch"].rows.values()))


def _observe(tables: Any) -> Seen:
    bridges, others, numbers, errors, mtus = {}, {}, {}, {}, {}
    for row in _root(tables).bridges:
        ours = OURS in row.external_ids
        ports = [port for port in row.ports if port.name != row.name]
        strange = frozenset(
            interface.name
            for port in ports
            if not ours or OURS not in port.external_ids
            for interface in port.interfaces
        )
        if strange or not ours:
            others[row.name] = strange
        if ours:
            mine = sorted((_port(port) for port in ports if OURS in port.external_ids), key=lambda port: port.name)
            bridges[row.name] = Bridge(
                row.name, row.datapath_type or "system", row.fail_mode == ["secure"], tuple(mine)
            )
        for interface in (one for port in row.ports for one in port.interfaces):
            if interface.ofport and interface.ofport[0] > 0:
                numbers[interface.name] = interface.ofport[0]
            if interface.error:
                errors[interface.name] = interface.error[0]
            if (noted := _noted(interface.external_ids.get(_MTUS, ""))) is not None:
                mtus[interface.name] = noted
    return Seen(bridges, others, numbers, errors, mtus)


def _port(row: Any) -> Port:
    interfaces = sorted((_interface(one) for one in row.interfaces), key=lambda one: one.name)
    return Port(row.name, tuple(interfaces), *(some[0] if some else None for some in (row.bond_mode, row.lacp)))


def _interface(row: Any) -> Interface:
    return Interface(row.name, row.type, row.options.get("peer"), row.mtu_request[0] if row.mtu_request else None)


def _noted(words: str) -> NotedMtu | None:
    numbers = [int(word) for word in words.split() if word.isdecimal()]
    return NotedMtu(numbers[0], tuple(numbers[1:])) if numbers else None


# -- changing -----------------------------------------------------------------------------------------------------
def _apply(api: Any, steps: Sequence[RowStep]) -> None:
    with api.transaction(check_error=True, log_errors=False) as transaction:
        for step in steps:
            for command in _commands(api, step):
                transaction.add(command)


def _commands(api: Any, step: RowStep) -> Iterator[Any]:
    match step:
        case RemoveBridge(name):
            yield api.del_br(name)
        case RemovePort(bridge, name):
            yield api.del_port(name, bridge)
        case AddBridge(bridge):
            yield api.add_br(bridge.name, may_exist=False, datapath_type=bridge.datapath)
            yield api.db_set(
                "Bridge", bridge.name,
                ("external_ids", {OURS: "1"}), ("fail_mode", "secure" if bridge.secure else "standalone"),
                ("other_config", {"disable-in-band": "true"}),
            )  # fmt: skip
        case AddPort(bridge, port):
            first, *rest = port.interfaces
            yield api.add_port(bridge, port.name, may_exist=False, **_columns(first))
            if rest or first.name != port.name:
                yield _members(api, port)
            bond = {"bond_mode": port.bond_mode, "lacp": port.lacp}
            yield api.db_set(
                "Port", port.name,
                ("external_ids", {OURS: "1"}), *((key, value) for key, value in bond.items() if value is not None),
            )  # fmt: skip


def _note(api: Any, mtus: Sequence[NoteMtu]) -> None:
    with api.transaction(check_error=True, log_errors=False) as transaction:
        for one in mtus:
            words = " ".join(str(mtu) for mtu in (one.mtu.had, *one.mtu.given))
            transaction.add(api.db_set("Interface", one.name, ("external_ids", {_MTUS: words})))


def _columns(interface: Interface) -> dict[str, Any]:
    columns: dict[str, Any] = {"type": interface.type, "external_ids": {OURS: "1"}}
    if interface.peer is not None:
        columns["options"] = {"peer": interface.peer}
    if interface.mtu is not None:
        columns["mtu_request"] = interface.mtu
    return columns


def _members(api: Any, port: Port) -> Any:
    """A command of ours: ovsdbapp has none for bonds. The port has been made with one interface of its own name."""
    from ovsdbapp.backend.ovs_idl import command, idlutils

    class Members(command.BaseCommand):  # type: ignore[misc]
        def run_idl(self, txn: Any) -> None:
            row = idlutils.row_by_value(self.api.idl, "Port", "name", port.name)
            before, rows = list(row.interfaces), []
            for one in port.interfaces:
                made = txn.insert(self.api.tables["Interface"])
                made.name = one.name
                self.set_columns(made, **_columns(one))
                rows.append(made)
            row.interfaces = rows
            for old in before:
                txn.expected_ifaces.discard(old.uuid)
                old.delete()

    return Members(api)
