"""Plans of networks of provider cable: two VMs of one host, joined NIC by NIC. Pure.

Both QEMUs bind a Unix datagram socket and send to the other's by its path. So either may come, go and come again, in
any order: what is sent meanwhile is lost, as on a cable that is not plugged in, and nothing has to be told to the
other. A stream would have to be connected again, which QEMU 7.2 cannot.

A VM does not know whom it will be joined to when it starts. Its own socket has a name of its own, and it sends to
``NAME.peer``: a symbolic link, set once there is another VM, to that one's socket.

QEMU asks the kernel when it may send on (poll(2)), and for a datagram socket that is not connected the kernel looks at
what the sender has on its way (``SO_SNDBUF``), not at the receiver's queue. Where that queue is full first, which
``net.unix.max_dgram_qlen`` says, QEMU tries again and again until the other VM takes something: forever, if that is
paused. Measured with QEMU 7.2, on Linux 6.18, with a VM that sends all it can to a paused one: 4.8 of 5 s of a CPU with
a queue of 10, 0.2 s with one of 512.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.paths import short_hash

DATAGRAM_BYTES = 768
"""What the shortest datagram counts for the sender, at least (``SKB_TRUESIZE(1)`` of include/linux/skbuff.h: struct
sk_buff, 256, and data with struct skb_shared_info, 512). 278 of them were on their way with 212992 bytes."""
_ENDS = 2
_PEER = ".peer"
_FIRST_GROUP = 0x43000000


@dataclass(frozen=True, slots=True)
class End:
    """A VM that is plugged into the cable. ``nics``: name and MAC address. ``since`` orders VMs: who was first."""

    uid: str
    name: str
    since: str
    nics: Mapping[str, str]


def socket_name(uid: str, nic: str) -> str:
    """16 characters, the first ten of them the VM's."""
    return short_hash(uid) + hashlib.sha256(nic.encode()).hexdigest()[:6]


def folder_name(network: str) -> str:
    return short_hash(f"cable/{network}")


def group_of(network: str) -> int:
    """A group that no one else is in: only QEMUs that are in it come to the cable's sockets."""
    return _FIRST_GROUP + int(hashlib.sha256(f"cable/{network}".encode()).hexdigest()[:6], 16)


def netdev(folder: Path, uid: str, nic: str) -> Mapping[str, object]:
    """Options of ``-netdev`` (qapi/net.json, NetdevDgramOptions; QEMU 7.2 or newer)."""
    place = folder / socket_name(uid, nic)
    return {
        "type": "dgram",
        "local": {"type": "unix", "path": str(place)},
        "remote": {"type": "unix", "path": f"{place}{_PEER}"},
    }


def ends(users: Iterable[End]) -> tuple[End, ...]:
    """Whom the cable joins: the first two."""
    return tuple(sorted(users, key=lambda end: (end.since, end.uid))[:_ENDS])


def check(network: str, uid: str, users: Sequence[End]) -> None:
    """Raises ``Refused`` (``CableTaken``, ``DuplicateMAC``) if the VM ``uid`` cannot be plugged in."""
    both = ends(users)
    if uid not in {end.uid for end in both}:
        first, second = (end.name for end in both)
        raise Refused(
            f"network {network} is a cable between {first} and {second}: it has no third end",
            code="CableTaken",
            hint="make a network of provider cable for each pair of VMs",
            # One of the two may go.
            retryable=True,
        )
    for nic, mac in both[0].nics.items():
        if len(both) == _ENDS and both[1].nics.get(nic) == mac:
            raise Refused(
                f"{both[0].name} and {both[1].name} have the same MAC address {mac} at both ends of {network} ({nic})",
                code="DuplicateMAC",
                hint="leave spec.networks[].mac out, or give each its own",
                retryable=True,
            )


def links(users: Sequence[End]) -> Mapping[str, str]:
    """The symbolic links of the cable's folder, and where they lead: NICs of one name lead to each other."""
    both = ends(users)
    if len(both) < _ENDS:
        return {}
    return {
        socket_name(one.uid, nic) + _PEER: socket_name(other.uid, nic)
        for one, other in (both, both[::-1])
        for nic in one.nics
        if nic in other.nics
    }


def strays(files: Iterable[str], users: Sequence[End]) -> list[str]:
    """Of the names in the cable's folder, those that belong to nobody who is plugged in."""
    kept = {socket_name(end.uid, nic) for end in ends(users) for nic in end.nics} | set(links(users))
    return sorted(name for name in files if name not in kept)


def belonging(files: Iterable[str], uid: str, keep: Iterable[str] = ()) -> list[str]:
    """Of the names in a cable's folder, those of the VM ``uid``, but for its NICs ``keep``."""
    kept = tuple(socket_name(uid, nic) for nic in keep)
    return sorted(name for name in files if name.startswith(short_hash(uid)) and not name.startswith(kept))
