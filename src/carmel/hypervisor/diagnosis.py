"""From QEMU's and its helpers' last words to an error with a code and something to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from carmel.cpulist import format_cpu_list
from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import MachineConfig
from carmel.hypervisor.failures import QEMUFailed
from carmel.units import format_bytes

# (what they say, code, what to do), the first that fits.
_KNOWN: Sequence[tuple[re.Pattern[str], str, str]] = tuple(
    (re.compile(pattern, re.IGNORECASE), code, hint)
    for pattern, code, hint in (
        (
            r"host forwarding rule|address already in use|failed to bind",
            "PortInUse",
            "another program has the port: choose another hostPort, or leave it out to get a free one",
        ),
        (
            r"failed to get .* lock|is another process using the image",
            "DiskInUse",
            "another process has the disk open: stop that first",
        ),
        (
            r"cannot set up guest memory|cannot allocate memory",
            "InsufficientMemory",
            "this host has not enough free memory: give the VM less, or stop another",
        ),
        (
            r"could not access kvm|failed to initialize kvm|hv_vm_create|failed to initialize hvf",
            "NoAccelerator",
            "the accelerator cannot be used: carmel doctor says why",
        ),
        (
            r"number of smp cpus requested .* exceeds max cpus",
            "TooManyCPUs",
            "this host's interrupt controller takes no more (a GICv2: 8): give the VM fewer vCPUs",
        ),
        (
            r"virtualization extensions to the guest cpu",
            "NestedVirtualizationUnavailable",
            "leave spec.cpu.nestedVirtualization out: this host's KVM and QEMU cannot nest",
        ),
    )
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
    for pattern, code, hint in _KNOWN:
        for line in reversed(said):
            if pattern.search(line):
                return Refused(f"{program} could not start: {line}", code=code, hint=hint)
    hint = "machines/UID/qemu.log below carmeld's state directory holds all that it said"
    return QEMUFailed(f"{program} ended ({how}): {last}", hint=hint)


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
