"""Namespaces of our own, in which a Debian root file system can be set up without privilege and without traces.

``enter`` gives the calling process user, mount, PID, network, IPC and UTS namespaces: it is root there, with 65,536
user and group ids, sees no network, and every mount it makes is gone with its last process. Foreign (arm64) programs
run by a binfmt_misc instance that belongs to the user namespace, so that the machine's own registrations are not
touched; Linux has that since 6.7 (Documentation/admin-guide/binfmt-misc.rst). Where the machine already runs arm64
programs (it is one, or has them registered) none is made.

Manual pages: user_namespaces(7), pid_namespaces(7), newuidmap(1), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import pwd
import signal
import subprocess
from pathlib import Path

from carmel.errors import Refused
from carmel.run import find_program

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_IDS = 65536
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The first twenty bytes of an ELF file: 64 bit, little endian, executable or shared, machine 183 (AArch64).
_AARCH64 = (
    rb":carmel-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:"
)
_LIBC = ctypes.CDLL(None, use_errno=True)


def runs_arm64() -> bool:
    """Whether this machine's kernel starts arm64 programs, also in a chroot, without our help."""
    if platform.machine() in ("aarch64", "arm64"):
        return True
    for entry in _BINFMT.glob("qemu-aarch64*"):
        with contextlib.suppress(OSError):
            lines = entry.read_text().splitlines()
            # F: the interpreter was opened when it was registered, so a chroot need not hold it.
            if "enabled" in lines and any(line.startswith("flags:") and "F" in line for line in lines):
                return True
    return False


def enter() -> None:
    """Move this process into new namespaces; returns in a child that is their first process (PID 1).

    The caller's process waits and ends with the child's exit status. All die when the process that started the
    caller dies. Raises ``Refused`` (code ``NamespacesRefused``) where the machine does not allow it.
    """
    _die_with_parent()
    _new_user_namespace()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _die_with_parent()
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    with contextlib.suppress(OSError):
        # Refused in containers whose /proc is partly covered: the outer one does too.
        mount("proc", Path("/proc"), "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def run_arm64_by(interpreter: Path) -> None:
    """Let arm64 programs run, for this user namespace only. Raises ``Refused`` (code ``ForeignProgramsRefused``)."""
    try:
        mount("binfmt_misc", _BINFMT, "binfmt_misc")
        (_BINFMT / "register").write_bytes(_AARCH64 + os.fsencode(interpreter) + b":OCF")
    except OSError as exc:
        raise Refused(
            f"this machine cannot run arm64 programs for a build: {exc.strerror}",
            code="ForeignProgramsRefused",
            hint="Linux 6.7 or newer allows it; on an older one install qemu-user-static with binfmt-support",
        ) from exc


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())


def bind(source: Path, target: Path) -> None:
    """Make ``source`` visible at ``target``, with all that is mounted below it."""
    _call("mount", os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None)


def unmount(target: Path) -> None:
    _call("umount2", os.fsencode(target), _MNT_DETACH)


def subordinate_ids(path: Path, user: str, uid: int) -> int | None:
    """The first of 65,535 or more subordinate ids of ``user`` in subuid(5) or subgid(5), if there are so many."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            owner, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if owner in (user, str(uid)) and first.isdecimal() and count.isdecimal() and int(count) >= _IDS - 1:
                return int(first)
    return None


def _new_user_namespace() -> None:
    ready_read, ready_write = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        # Ids are mapped from outside: inside, a process may map nothing but itself.
        os.close(ready_write)
        os.read(ready_read, 1)
        os._exit(0 if _map_ids(os.getppid()) else 1)
    os.close(ready_read)
    try:
        everything = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
        _call("unshare", everything)
    except OSError as exc:
        raise _refused(f"this machine does not allow user namespaces: {exc.strerror}") from exc
    finally:
        os.close(ready_write)
        _, status = os.waitpid(mapper, 0)
    if status != 0:
        raise _refused("user ids could not be mapped into a user namespace")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])


def _map_ids(pid: int) -> bool:
    if os.geteuid() == 0:
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(f"0 0 {_IDS}")
        except OSError:
            return False
        return True
    user = pwd.getpwuid(os.geteuid()).pw_name
    for program, own, file in (("newuidmap", os.geteuid(), "subuid"), ("newgidmap", os.getegid(), "subgid")):
        first = subordinate_ids(Path("/etc") / file, user, os.geteuid())
        found = find_program(program)
        if first is None or found is None:
            return False
        words = [str(found), str(pid), "0", str(own), "1", "1", str(first), str(_IDS - 1)]
        if subprocess.run(words, check=False).returncode != 0:
            return False
    return True


def _refused(message: str) -> Refused:
    return Refused(
        message,
        code="NamespacesRefused",
        hint="install uidmap and give the user ranges in /etc/subuid and /etc/subgid (see subuid(5)), or build as root",
    )


def _die_with_parent() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
