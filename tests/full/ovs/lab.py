"""Open vSwitch with the kernel's datapath in an emulated Arm guest. Its flows are the data plane's and the firewall's;
only its rows are written by ovs-vsctl, since ovsdbapp does not reach into the guest."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from carmel.network.dataplane import PortPlan, Rate
from carmel.network.ovs.firewall import OvsFirewall
from carmel.network.ovs.health import Lookups, is_deaf, read_lookups
from carmel.network.ovs.layout import meters
from carmel.network.ovs.packetlog import PacketLog
from carmel.network.ovs.pipeline import Plugged, pipeline
from carmel.network.ovs.rows import SWITCH
from carmel.network.ovs.switch import Switch
from carmel.run import Command, Result
from tests.contract.connections import addresses_of
from tests.full.ovs.image import SCHEMA, ovs_bundle
from tests.system.build.guest import booted
from tests.system.network.firewall.lab import GuestRunner
from tests.system.network.firewall.lab import Lab as FirewallLab

_READY = r"carmel micro: ready nonce="
_SEGMENT = 1
_PACKETS = "/tmp/packets"


class _Plan(PortPlan):
    """Of a VM that is a letter: its interface is named by it."""

    @property
    def interface(self) -> str:
        return f"cmp{self.owner}"


class _GuestSwitch(Switch):
    """Its bridge is made by who started it."""

    async def ensure(self) -> None: ...

    async def is_there(self) -> bool:
        return True


class _GuestPackets:
    """What is handed over is written into a file of the guest's, and told when it is asked for."""

    def __init__(self, runner: GuestRunner) -> None:
        self._runner = runner
        self._on_line: Callable[[str], None] = print
        self._told = 0

    async def packets(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._told = on_line, 0
        monitor = f"ovs-ofctl -O OpenFlow14 monitor {SWITCH} 65534 -P nxt_packet_in2"
        try:
            await self._sh(f"{monitor} </dev/null >{_PACKETS} 2>&1 & echo $! >{_PACKETS}.pid")
            await asyncio.Event().wait()
        finally:
            await self._sh(f"kill $(cat {_PACKETS}.pid)")

    async def tell(self) -> None:
        *lines, _rest = (await self._sh(f"cat {_PACKETS}")).text.split("\n")
        for line in lines[self._told :]:
            self._on_line(line)
        self._told = len(lines)

    async def _sh(self, script: str) -> Result:
        return await self._runner.run(Command(["sh", "-c", script]), check=False)


class Lab(FirewallLab):
    """As the firewall's lab, whose bridge is Open vSwitch's."""

    def __init__(self, runner: GuestRunner) -> None:
        self.switch = _GuestSwitch(runner, Path("/run/openvswitch"))
        self._packets, self._logged = _GuestPackets(runner), list[str]()
        self.switch.packet_log = PacketLog(self._packets, self._logged.append)
        super().__init__(runner, OvsFirewall(self.switch))
        self.plans: list[PortPlan] = []

    async def start(self) -> None:
        await self.sh(f"""set -e
            mkdir -p /var/run/openvswitch /etc/openvswitch
            [ -e /run/openvswitch ] || ln -s /var/run/openvswitch /run/openvswitch
            ovsdb-tool create /etc/openvswitch/conf.db /{SCHEMA}
            ovsdb-server --remote=punix:/var/run/openvswitch/db.sock --pidfile --detach --no-chdir -vconsole:off
            ovs-vsctl --no-wait init
            ovs-vsctl --no-wait add-br {SWITCH} -- set bridge {SWITCH} fail_mode=secure""")
        await self.start_switching()

    async def start_switching(self) -> None:
        await self.sh("ovs-vswitchd --pidfile --detach --no-chdir -vconsole:off")

    async def end_switching(self) -> None:
        await self.sh("""pid=$(cat /var/run/openvswitch/ovs-vswitchd.pid); kill -9 $pid
            while [ -e /proc/$pid ]; do sleep 0.05; done""")

    async def plug(self, name: str, *, known: bool = True, ingress: Rate | None = None) -> None:
        four, six = addresses_of(name)
        await self.sh(f"""set -e
            /opt/ip netns add {name}
            /opt/ip link add cmp{name} type veth peer name eth0 netns {name}
            /opt/ip link set cmp{name} up
            ovs-vsctl add-port {SWITCH} cmp{name}
            /opt/ip -n {name} link set lo up
            /opt/ip -n {name} link set eth0 up
            /opt/ip -n {name} addr add {four}/24 dev eth0
            /opt/ip -n {name} addr add {six}/64 dev eth0 nodad
        """)
        mac = (await self.sh(f"/opt/ip netns exec {name} cat /sys/class/net/eth0/address")).text.strip()
        addresses = (ipaddress.ip_address(four), ipaddress.ip_address(six))
        self.plans.append(_Plan(name, "eth0", "lan", mac, addresses=addresses, ingress=ingress))
        if known:
            self.know(name)
        await self.settle()

    async def logged(self) -> str:
        await self._packets.tell()
        return "\n".join(self._logged)

    async def settle(self) -> None:
        """As the data plane does, whatever is there."""
        ports = []
        for plan in self.plans:
            number = (await self.sh(f"ovs-vsctl get interface {plan.interface} ofport")).text
            ports.append(Plugged(plan, int(number), _SEGMENT))
        await self.switch.openflow.set_meters(meters(ports), await self.switch.openflow.meters())
        await self.switch.network.put(pipeline(ports, [], firewalled=True))

    async def unplug_all(self) -> None:
        await self.sh(f"""killall nc 2>/dev/null
            for name in $(/opt/ip netns list | cut -d' ' -f1); do
                ovs-vsctl del-port {SWITCH} cmp$name; /opt/ip netns del $name
            done
            ovs-appctl dpctl/flush-conntrack
            rm -f /tmp/said /tmp/to* /tmp/from*""")
        self.bindings.clear()
        self.plans.clear()
        self._logged.clear()
        await self.load()
        await self.settle()

    async def lookups(self) -> Lookups:
        found = read_lookups((await self.sh("ovs-appctl dpctl/show")).text)
        assert found is not None
        return found

    async def hears(self) -> bool:
        """In some starts on one CPU, ovs-vswitchd takes nothing from the kernel: then it is started anew."""
        before = await self.lookups()
        await self.pings("a", "10.0.0.2")
        if not is_deaf(before, await self.lookups()):
            return True
        await self.end_switching()
        await self.start_switching()
        await self.settle()
        return False


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    bundle = await ovs_bundle()
    with tempfile.TemporaryDirectory(prefix="co-") as folder:
        words: list[str | Path] = ["-kernel", bundle.kernel, "-initrd", bundle.initrd, "-append", bundle.command_line]
        async with booted(Path(folder), words, memory="512M") as guest:
            await guest.expect(_READY, 90)
            here = Lab(GuestRunner(guest))
            await here.start()
            try:
                yield here
            finally:
                await here.switch.packet_log.aclose()
