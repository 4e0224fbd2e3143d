"""The traffic that is measured: UDP at a rate, by the kernel's packet generator, and TCP as fast as it goes.

UDP comes from the guest or the outside without a socket, TCP through the sockets of both: ``nc`` in the guest hands its
connection to ``dd``, outside is ``offload_peer``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import offload_peer
from bench.offload_lab import ADDRESSES, OUTSIDE, World
from bench.offload_samples import Sample
from tests.full.smartnic import generator

_PORT = 5001
_PEER, _LOG = "/tmp/offload_peer.py", "/tmp/offload_peer.log"
_PYTHON = "/usr/lib/carmel/bin/python3"
_MEGABYTE = 1e6
_BEFORE_SECONDS = 2
"""Until it runs steadily."""
_IN_BACKGROUND = """
rm -f /tmp/load.*
(
{script}
mv /tmp/load.part /tmp/load.said) </dev/null >/tmp/load.part 2>&1 &
"""
_STOP = "echo stop >/proc/net/pktgen/pgctrl"
_ITS_END = "until [ -e /tmp/load.said ]; do sleep 0.2; done; cat /tmp/load.said"


class Interrupted(RuntimeError):
    """The traffic was."""


@dataclass(frozen=True, slots=True)
class Load:
    """``outwards``: the guest sends. UDP has a ``size`` (bytes a frame) and a ``rate`` (frames a second; 0: as many
    as the sender can)."""

    outwards: bool
    size: int = 0
    rate: int = 0

    @property
    def name(self) -> str:
        direction = "out" if self.outwards else "in"
        pace = f"{self.rate:,}/s" if self.rate else "all that it can"
        return f"UDP {direction}, {self.size} bytes, {pace}" if self.size else f"TCP {direction}"

    @property
    def may_be_lost(self) -> bool:
        """Behind the port. What TCP sends arrives."""
        return bool(self.size) and not self.outwards

    @property
    def unit(self) -> str:
        return "1,000 packets" if self.size else "MB"

    def amount(self, first: Sample, last: Sample) -> float:
        """In units, of what passed the port between two samples."""
        if self.size:
            packets = last.packets_in - first.packets_in if self.outwards else last.packets_out - first.packets_out
            return packets / 1e3
        passed = last.bytes_in - first.bytes_in if self.outwards else last.bytes_out - first.bytes_out
        return passed / _MEGABYTE

    def passed(self, samples: Sequence[Sample]) -> float:
        """Units a second that passed the port. ``Interrupted`` if nothing came through in some second."""
        if any(self.amount(*both) <= 0 for both in itertools.pairwise(samples)):
            raise Interrupted(f"{self.name}: nothing came through for a second")
        return self.amount(samples[0], samples[-1]) / (samples[-1].second - samples[0].second)


_FAST = 10_500
"""Frames a second between which the generator does not sleep: it waits busily for less than 100 us (Linux's
net/core/pktgen.c, spin()). A guest that sleeps between frames costs its host more than the frames do."""
HEAVY = (Load(True, 64, _FAST), Load(False, 1500), Load(True), Load(False))
LOADS = (
    Load(True, 64, _FAST), Load(True, 512, _FAST), Load(True, 1500, _FAST),
    Load(False, 64, 8000), Load(False, 1500, 8000), Load(False, 64), Load(False, 512), Load(False, 1500),
    Load(True), Load(False),
)  # fmt: skip


@contextmanager
def sending(here: World, load: Load, way: str, seconds: int) -> Iterator[None]:
    """It is under way, and goes on for ``seconds`` (TCP) or until the end of the block (UDP)."""
    if load.size:
        _begin_udp(here, load, way)
    else:
        _begin_tcp(here, load, way, _BEFORE_SECONDS + seconds)
    time.sleep(_BEFORE_SECONDS)
    yield
    said = here.run(way, f"{_STOP}\n{_ITS_END}" if load.size else _ITS_END, in_guest=load.outwards or not load.size)
    # What its interface did not take (``errors``) did not come through, which is what counts.
    if load.size and "Result: OK" not in said:
        raise RuntimeError(f"the generator of {way} says: {said}")


def _begin_udp(here: World, load: Load, way: str) -> None:
    source, to = (ADDRESSES[way], OUTSIDE) if load.outwards else (OUTSIDE, ADDRESSES[way])
    link, mac = ("eth0", here.outside_mac) if load.outwards else ("out1", here.macs[way])
    ports = ("udp_dst_min 9", "udp_dst_max 9", "udp_src_min 9", "udp_src_max 9", "clone_skb 0")
    pace = f"delay {1_000_000_000 // load.rate if load.rate else 0}"
    size = ("count 0", f"pkt_size {load.size}", pace)
    script = generator.script(
        link, *size, f"dst {to}", f"dst_mac {mac}", f"src_min {source}", f"src_max {source}", *ports
    )
    here.run(way, _IN_BACKGROUND.format(script=script), in_guest=load.outwards)


def _begin_tcp(here: World, load: Load, way: str, seconds: int) -> None:
    role = "sink" if load.outwards else "source"
    said = here.nic.shell(
        f"cat >{_PEER} <<'PEER'\n{Path(offload_peer.__file__).read_text()}\nPEER\n>{_LOG}\n"
        f"/usr/bin/ip netns exec out {_PYTHON} {_PEER} {OUTSIDE} {_PORT} {role} {seconds} >{_LOG} 2>&1 &\n"
        f"until grep . {_LOG}; do sleep 1; done"
    )
    if "listening" not in said:
        raise RuntimeError(f"the other end says: {said}")
    program = "dd if=/dev/zero bs=64k" if load.outwards else "dd of=/dev/null bs=64k"
    script = f"timeout {seconds} nc {OUTSIDE} {_PORT} -e {program}"
    here.run(way, _IN_BACKGROUND.format(script=script), in_guest=True)
