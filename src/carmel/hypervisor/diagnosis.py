"""From QEMU's and its helpers' last words to an error with a code and something to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from carmel.cpulist import format_cpu_list
from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import MachineConfig
from carmel.hypervisor.failures import QEMUFailed, QMPFailed
from carmel.units import format_bytes

_OTHERS_IN_GROUP = "its IOMMU group has devices that the host itself uses: only whole groups can be given to VMs"


@dataclass(frozen=True, slots=True)
class _Known:
    """What they say (a regular expression), and what it means. ``retryable``: it may go by itself."""

    pattern: str
    code: str
    hint: str
    retryable: bool = False


# The first that fits. Those of vfio-pci (hw/vfio) and NBD (block/nbd.c, nbd/client.c) quote errors that others mean
# something else by, so they come first.
_KNOWN: Sequence[_Known] = (
    _Known(r"vfio.*no such host device", "FunctionMissing", "was its SmartNIC or drive restarted, or taken out?"),
    _Known(
        r"vfio.*no iommu_group found",
        "NoIOMMU",
        "switch the IOMMU (SMMU, VT-d, AMD-Vi) on in the firmware, and in the kernel if it was told off",
    ),
    _Known(r"vfio.*group \d+ is not viable", "FunctionGroupShared", _OTHERS_IN_GROUP),
    _Known(
        r"vfio.*(failed to open /dev/vfio/\d+: device or resource busy|error getting device from group)",
        "FunctionInUse",
        "another VM or program has it: stop that first",
    ),
    _Known(r"vfio.*failed to open /dev/vfio", "NotPermitted", "functions of the host are given to VMs by root"),
    _Known(
        r"vfio.*failed to set iommu for container: operation not permitted",
        "UnsafeInterrupts",
        "this host's IOMMU does not keep a function's interrupts apart; where guests are trusted, "
        "vfio_iommu_type1.allow_unsafe_interrupts=1 on the kernel's command line allows it",
    ),
    _Known(
        r"vfio.*dma_map.*cannot allocate memory",
        "MemlockTooSmall",
        "QEMU may not lock so much memory in RAM: LimitMEMLOCK= of carmeld's unit, or limits.conf(5)",
    ),
    _Known(
        r"requested export not available|export '.*' not present|no export named",
        "NBDExportMissing",
        "the NBD server is there, but it does not export this disk",
        retryable=True,
    ),
    _Known(
        r"tls handshake failed|server requires tls|server does not support starttls",
        "NBDNotTrusted",
        "the NBD server and this host do not have the same key",
    ),
    _Known(
        r"failed to connect to '.*:\d+'|server dropped connection|failed to read (data|initial magic|option)",
        "NBDUnreachable",
        "the NBD server does not answer: is it up?",
        retryable=True,
    ),
    _Known(
        r"host forwarding rule|address already in use|failed to bind",
        "PortInUse",
        "another program has the port: choose another hostPort, or leave it out to get a free one",
    ),
    _Known(
        r"failed to get .* lock|is another process using the image",
        "DiskInUse",
        "another process has the disk open: stop that first",
    ),
    _Known(
        r"cannot set up guest memory|cannot allocate memory",
        "InsufficientMemory",
        "this host has not enough free memory: give the VM less, or stop another",
    ),
    _Known(
        r"could not access kvm|failed to initialize kvm|hv_vm_create|failed to initialize hvf",
        "NoAccelerator",
        "the accelerator cannot be used: carmel doctor says why",
    ),
    _Known(
        r"number of smp cpus requested .* exceeds max cpus",
        "TooManyCPUs",
        "this host's interrupt controller takes no more (a GICv2: 8): give the VM fewer vCPUs",
    ),
    _Known(
        r"virtualization extensions to the guest cpu",
        "NestedVirtualizationUnavailable",
        "leave spec.cpu.nestedVirtualization out: this host's KVM and QEMU cannot nest",
    ),
)
_NO_HUGE_PAGES = re.compile(r"unable to map backing store|preallocating memory failed", re.IGNORECASE)
_NO_SUCH_PAGES = re.compile(r"failed to create memfd|failed to resize memfd", re.IGNORECASE)
_NOT_BOUND = re.compile(
    r"cannot bind memory to host numa nodes|invalid host-nodes value|property '.*host-nodes' not found", re.IGNORECASE
)
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z ")


def explain(program: str, words: Sequence[str], how: str) -> CarmelError:
    """Why ``program`` ended. ``how`` is its exit status in words."""
    said = [_STAMP.sub("", line) for line in words]
    last = said[-1] if said else "it said nothing"
    known = recognise(said)
    if known is not None:
        line, meaning = known
        return Refused(
            f"{program} could not start: {line}", code=meaning.code, hint=meaning.hint, retryable=meaning.retryable
        )
    hint = "machines/UID/qemu.log below carmeld's state directory holds all that it said"
    return QEMUFailed(f"{program} ended ({how}): {last}", hint=hint)


def explain_refusal(refused: QMPFailed, what: str) -> CarmelError:
    """Why QEMU did not do ``what`` ("plug the NIC eth1") while the VM runs."""
    known = recognise([refused.message])
    if known is None:
        return refused
    line, meaning = known
    return Refused(f"QEMU could not {what}: {line}", code=meaning.code, hint=meaning.hint, retryable=meaning.retryable)


def recognise(said: Sequence[str]) -> tuple[str, _Known] | None:
    """The line that tells most, and what it means."""
    for known in _KNOWN:
        for line in reversed(said):
            if re.search(known.pattern, line, re.IGNORECASE):
                return line, known
    return None


def explain_start(config: MachineConfig, words: Sequence[str], how: str) -> CarmelError:
    """Why QEMU ended before it answered: ``explain``, with what ``config`` knows of the memory that was wanted."""
    return _memory_problem(config, "\n".join(words)) or explain("QEMU", words, how)


def _memory_problem(config: MachineConfig, said: str) -> CarmelError | None:
    nodes = format_cpu_list(node.host_node for node in config.numa if node.host_node is not None)
    if config.page_bytes is not None and (problem := _page_problem(config, config.page_bytes, nodes, said)) is not None:
        return problem
    if nodes and _NOT_BOUND.search(said):
        return Refused(
            f"the VM's memory cannot be bound to the host's node {nodes}: it has no memory that QEMU may use",
            code="MemoryNodeUnavailable",
            hint="carmel host shows the nodes that there are, and their memory",
        )
    return None


def _page_problem(config: MachineConfig, page_bytes: int, nodes: str, said: str) -> CarmelError | None:
    size = format_bytes(page_bytes)
    if _NO_SUCH_PAGES.search(said):
        return Refused(
            f"this host's kernel has no huge pages of {size}",
            code="UnknownPageSize",
            field="spec.memory.pageSize",
            hint="carmel host shows the sizes that it has",
        )
    if not _NO_HUGE_PAGES.search(said):
        return None
    where, folder = "", "/sys/kernel/mm"
    if nodes:
        # Several of them: each has a pool of its own.
        where, folder = f" on node {nodes}", f"/sys/devices/system/node/node{nodes if nodes.isdecimal() else 'N'}"
    return Refused(
        f"there are not {config.memory_bytes // page_bytes} free huge pages of {size}{where} "
        f"for the VM's {format_bytes(config.memory_bytes)}",
        code="InsufficientHugePages",
        field="spec.memory.pageSize",
        hint=f"reserve more: write their number to {folder}/hugepages/hugepages-{page_bytes // 1024}kB/nr_hugepages, "
        "or leave spec.memory.pageSize out",
        retryable=True,
    )


def exit_in_words(status: int | None) -> str:
    if status is None:
        return "exit status unknown"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
