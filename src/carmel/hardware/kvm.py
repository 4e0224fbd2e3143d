"""What the kernel's hypervisor offers, from what can be read without starting a VM."""

from __future__ import annotations

import fcntl
import os
import re

from carmel.hardware import devicetree
from carmel.hardware.model import Kvm
from carmel.hardware.sysroot import Sysroot

_INTERRUPTS_LIMIT = 1 << 18
"""The timers' rows come first; a row of a machine with 1,024 CPUs has 11 KiB."""
_GIC = re.compile(r"\bGIC(v[2-9]|-0)\b", re.ASCII)
_MODE = re.compile(r"(?:^|\s)kvm-arm\.mode=(\w+)", re.ASCII)
_RELEASE = re.compile(r"(\d+)\.(\d+)", re.ASCII)
_PHYSICAL_TIMER_SINCE = (5, 1)
_GICV2 = ("arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic")
_GICV3 = ("arm,gic-v3",)
_GICV5 = ("arm,gic-v5",)
"""Linux, Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml, arm,gic-v3.yaml and arm,gic-v5.yaml."""
_CHECK_EXTENSION = 0xAE03
_CAP_ARM_EL2 = 240
"""Linux, include/uapi/linux/kvm.h: KVM_CHECK_EXTENSION, KVM_CAP_ARM_EL2 (6.16)."""


def read_kvm(root: Sysroot, architecture: str) -> Kvm:
    present = root.exists("dev/kvm") or root.exists("sys/class/misc/kvm")
    if architecture != "aarch64":
        return Kvm(present=present, nested=_nested_x86(root) if present else None)
    interrupts = root.text("proc/interrupts", _INTERRUPTS_LIMIT) or ""
    mode = _MODE.findall(root.text("proc/cmdline") or "")
    return Kvm(
        present=present,
        gic_version=gic_version(root),
        vhe=_vhe(root, interrupts, mode[-1] if mode else None),
        nested=_nested_arm(root, mode[-1] if mode else None) if present else None,
    )


def gic_version(root: Sysroot) -> int | None:
    """Of the machine's own interrupt controller; ``None`` where there is none to be seen, as on x86-64."""
    said = _from_madt(root) or _from_device_tree(root)
    return said or _from_interrupts(root.text("proc/interrupts", _INTERRUPTS_LIMIT) or "")


def _from_madt(root: Sysroot) -> int | None:
    """The GIC Distributor structure's version (ACPI 6.5, 5.2.12.15: type 0xC, 24 bytes, version at 20). Only root may
    read the table."""
    table = root.data("sys/firmware/acpi/tables/APIC", 1 << 20) or b""
    at = 44
    while at + 2 <= len(table):
        sort, length = table[at], table[at + 1]
        if length < 2:
            return None
        if sort == 0x0C and at + 24 <= len(table) and length >= 24:
            return table[at + 20] or None
        at += length
    return None


def _from_device_tree(root: Sysroot) -> int | None:
    tree = devicetree.base(root)
    if tree is None:
        return None
    for node in devicetree.mapped_nodes(root, tree):
        if "interrupt-controller" in root.names(node):
            compatible = set(devicetree.strings(root, f"{node}/compatible"))
            for version, names in ((2, _GICV2), (3, _GICV3), (5, _GICV5)):
                if compatible & set(names):
                    return version
    return None


def _from_interrupts(interrupts: str) -> int | None:
    """From the names that the kernel's drivers give their interrupts (irq-gic.c: GICv2 or, before 5.12, GIC-0;
    irq-gic-v3.c: GICv3)."""
    found = _GIC.search(interrupts)
    if found is None:
        return None
    return 2 if found[1] == "-0" else int(found[1][1:])


def _vhe(root: Sysroot, interrupts: str, mode: str | None) -> bool | None:
    """Whether the kernel itself runs at EL2. KVM takes the guest's *physical* timer as an interrupt of its own only
    then (arch/arm64/kvm/arch_timer.c, "kvm guest ptimer", since Linux 5.1); the virtual one it always takes."""
    if "kvm guest ptimer" in interrupts:
        return True
    if mode in {"nvhe", "protected"}:
        return False
    release = _RELEASE.match(root.text("proc/sys/kernel/osrelease") or "")
    recent = release is not None and (int(release[1]), int(release[2])) >= _PHYSICAL_TIMER_SINCE
    return False if recent and "kvm guest vtimer" in interrupts else None


def _nested_x86(root: Sysroot) -> bool | None:
    for module in ("kvm_intel", "kvm_amd"):
        said = root.text(f"sys/module/{module}/parameters/nested")
        if said is not None:
            return said in {"1", "Y"}
    return None


def _nested_arm(root: Sysroot, mode: str | None) -> bool | None:
    """Linux, Documentation/admin-guide/kernel-parameters.txt, ``kvm-arm.mode``: only ``nested`` allows it; whether the
    cores can, KVM says."""
    if mode != "nested":
        return False
    if not root.live:
        return None
    try:
        handle = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return fcntl.ioctl(handle, _CHECK_EXTENSION, _CAP_ARM_EL2) > 0
    except OSError:
        return None
    finally:
        os.close(handle)
