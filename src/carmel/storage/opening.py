"""Opens a directory of the host as a datastore: which directories may be one, and that only one daemon has it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from carmel.errors import Refused
from carmel.storage.datastore import DIRECTORY_MODE, DirectoryDatastore, missing
from carmel.storage.files import ProcessUser, explained

_SYSTEM_DIRECTORIES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"),
    *("/var/lib/dpkg", "/var/run", "/System", "/Library", "/Applications", "/private/etc", "/private/var/db"),
)
"""Neither these nor anything below them can be a datastore."""
_SHARED_DIRECTORIES = (
    *("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/var", "/var/lib", "/private"),
    *("/tmp", "/var/tmp"),  # noqa: S108 - named to be refused
)
"""These cannot be, but what lies below them can."""


def open_datastore(
    root: Path, *, user: ProcessUser | None = None, trusted: bool = False, must_exist: bool = False
) -> DirectoryDatastore:
    """Open the datastore at ``root``, made if it is not there (its parent must be).

    ``trusted`` is for the daemon's own below its state directory; any other path is looked at first. With
    ``must_exist`` nothing is made: the disk of a datastore that was there before may only be unmounted.
    Raises ``Refused`` (``DatastorePathRefused``, ``DatastoreInUse``, ``DatastoreMissing``). Blocking.
    """
    if not trusted:
        check_path(root)
    if must_exist and not (root / "volumes").is_dir():
        raise missing(root)
    with explained("open the datastore"):
        root.mkdir(mode=DIRECTORY_MODE, parents=trusted, exist_ok=True)
        lock = _lock(root)
        try:
            for place in (root, *(root / name for name in ("images", "volumes", "tmp"))):
                place.mkdir(exist_ok=True)
                _check_own(place)
                # mkdir's mode passes through the umask.
                place.chmod(DIRECTORY_MODE)
        except BaseException:
            os.close(lock)
            raise
    return DirectoryDatastore(root, lock, user)


def check_path(path: Path) -> None:
    """Refuse system directories, symbolic links on the way and parents that others may write to."""
    if not path.is_absolute() or ".." in path.parts:
        raise _refused(path, "is not an absolute path without '..'")
    with explained("look at the datastore's path"):
        real = path.resolve()
        if real != path:
            raise _refused(path, f"leads over a symbolic link to {real}", f"write {real} if you mean that")
        if str(path) in _SHARED_DIRECTORIES or any(path.is_relative_to(system) for system in _SYSTEM_DIRECTORIES):
            raise _refused(path, "belongs to the system")
        if not path.parent.is_dir():
            raise _refused(path, "has no parent directory", f"make {path.parent} first")
        for parent in path.parents:
            found = parent.stat()
            if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
                raise _refused(path, f"lies in {parent}, where everybody may exchange it")
            if found.st_uid not in (0, os.geteuid()):
                raise _refused(path, f"lies in {parent}, which belongs to another user")


def _refused(path: Path, why: str, hint: str = "choose a directory of its own, for example /srv/carmel") -> Refused:
    return Refused(
        f"{path} cannot be a datastore: it {why}",
        code="DatastorePathRefused",
        hint=hint,
        field="spec.directory.path",
    )


def _check_own(place: Path) -> None:
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(place, "is not a directory")
    if found.st_uid != os.geteuid():
        raise _refused(place, f"belongs to user {found.st_uid}, not to the daemon's user {os.geteuid()}")


def _lock(root: Path) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused(
            f"another Datastore, or another carmeld, uses {root}",
            code="DatastoreInUse",
            hint="each Datastore needs a directory of its own",
            retryable=True,
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
