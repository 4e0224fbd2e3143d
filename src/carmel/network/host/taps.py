"""The devices that QEMU sends and receives frames by: taps, macvtaps, and vhost-net beside them (linux/if_tun.h).

Descriptors are of the network namespace of the thread that opens them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.dataplane import PortHandles
from carmel.network.host.refusals import not_permitted

_TUN, _VHOST, _DEVICES = Path("/dev/net/tun"), Path("/dev/vhost-net"), Path("/dev")
_TUNSETIFF, _TUNGETIFF, _TUNSETVNETHDRSZ = 0x400454CA, 0x800454D2, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
_IFREQ = "16sH22x"
_VIRTIO_NET_HEADER_BYTES = 12


def open_tap(name: str, queues: int) -> PortHandles:
    """A tap that goes with its last descriptor. Raises ``Refused`` without ``/dev/net/tun`` or the privilege."""
    with _all_or_nothing() as opened:
        taps = [_open(_TUN, opened, "tun") for _ in range(queues)]
        for tap in taps:
            _as_queue(tap, name, queues)
        vhost = _open_vhost(queues, opened)
    return PortHandles(tuple(taps), tuple(vhost))


def open_macvtap(name: str, index: int, queues: int) -> PortHandles:
    """Queues of a macvtap that is there; it stays when they are closed. The kernel calls its device by its index
    (drivers/net/macvtap.c). Raises ``Refused`` without that device or the privilege."""
    device = _DEVICES / f"tap{index}"
    with _all_or_nothing() as opened:
        taps = [_open(device, opened, "macvtap") for _ in range(queues)]
        for tap in taps:
            if (found := _name_of(tap)) != name:
                raise Refused(
                    f"{device} is {found}, not {name}",
                    code="NoTapDevice",
                    hint="several network namespaces share this /dev: give carmeld one of its own",
                )
            _as_queue(tap, name, queues)
        vhost = _open_vhost(queues, opened)
    return PortHandles(tuple(taps), tuple(vhost))


def close_handles(handles: PortHandles) -> None:
    for fd in (*handles.taps, *handles.vhost):
        os.close(fd)


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened:
        yield opened
        opened.pop_all()


def _open_vhost(queues: int, opened: contextlib.ExitStack) -> list[int]:
    if not os.access(_VHOST, os.R_OK | os.W_OK):
        return []
    return [_open(_VHOST, opened, "vhost_net") for _ in range(queues)]


def _open(device: Path, opened: contextlib.ExitStack, module: str) -> int:
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise Refused(
            f"cannot open {device}: {exc.strerror}",
            code="NoTapDevice",
            hint=f"host networks need the module {module} and access to the device; user networks need neither",
        ) from exc
    opened.callback(os.close, fd)
    return fd


def _as_queue(tap: int, name: str, queues: int) -> None:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack(_IFREQ, name.encode(), flags))
        fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("i", _VIRTIO_NET_HEADER_BYTES))
    except OSError as exc:
        raise _refused(name, exc) from exc


def _name_of(tap: int) -> str:
    try:
        answer = fcntl.ioctl(tap, _TUNGETIFF, bytes(struct.calcsize(_IFREQ)))
    except OSError as exc:
        return f"gone ({exc.strerror})"
    return bytes(struct.unpack(_IFREQ, answer)[0]).rstrip(b"\0").decode()


def _refused(name: str, exc: OSError) -> CarmelError:
    if exc.errno == errno.EPERM:
        return not_permitted()
    if exc.errno in (errno.EBUSY, errno.EINVAL):
        # EINVAL: there is one of this name with another number of queues.
        return Refused(f"the port {name} is in use already", code="PortInUse", hint="stop the VM that has it")
    return Unavailable(f"cannot make the port {name}: {exc.strerror}", code="KernelRefused")
