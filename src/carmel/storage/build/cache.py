"""Finished images, kept by what went into them: ``results/RECIPE-KEY/`` with its files and ``manifest.json``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carmel.errors import InternalError
from carmel.storage.build.context import DiskImage, KernelBundle
from carmel.storage.build.files import copy, sync_directory

KEPT = 2
"""Of each recipe: the present image, and the one before, which a daemon of another version may still want."""
_MANIFEST = "manifest.json"


class ResultCache:
    """Blocking: call it in a thread. One writer a key, by the caller's lock on ``lock_path``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def lock_path(self, name: str) -> Path:
        return self._directory / "locks" / name

    def find(self, name: str) -> Path | None:
        """The directory of a whole result: its manifest is written last, under a name that only then exists."""
        place = self._results / name
        return place if (place / _MANIFEST).is_file() else None

    def prune(self, recipe: str, keep: int = KEPT) -> None:
        """Remove results of ``recipe`` but for the ``keep`` that were used last. Those in use just now stay.

        Some recipes hold Carmel itself, so each of its versions would leave a result behind.
        """
        of_recipe = re.compile(re.escape(recipe) + "-[0-9a-f]{32}")
        places = [place for place in self._results.glob(f"{recipe}-*") if of_recipe.fullmatch(place.name)]
        for place in sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)[keep:]:
            with self.lock_path(place.name).open("ab") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)

    def put(self, name: str, result: KernelBundle | DiskImage) -> Path:
        """Keep a copy of ``result``'s files. All or nothing, also across a power cut."""
        staging = self._results / f".new-{name}"
        place = self._results / name
        for leftover in (staging, place):
            if leftover.exists():
                shutil.rmtree(leftover)
        staging.mkdir(parents=True)
        try:
            for path in _files(result):
                copy(path, staging / path.name)
            (staging / _MANIFEST).write_text(json.dumps(_manifest(result), indent=1) + "\n")
            sync_directory(staging)
            staging.rename(place)
            sync_directory(self._results)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return place

    def deliver(self, name: str, work: Path, output: Path) -> KernelBundle | DiskImage:
        """Copy a kept result's files into ``output``, by way of ``work`` on the same file system."""
        place = self._results / name
        with contextlib.suppress(OSError):
            # For ``prune``; what came with the host may be read-only.
            os.utime(place)
        manifest = json.loads((place / _MANIFEST).read_text())
        names = [path.name for path in place.iterdir() if path.name != _MANIFEST]
        moved: list[Path] = []
        try:
            for file_name in names:
                copy(place / file_name, work / file_name)
            for file_name in names:
                moved.append(output / file_name)
                (work / file_name).rename(output / file_name)
            sync_directory(output)
        except BaseException:
            for path in moved:
                path.unlink(missing_ok=True)
            raise
        return _result(manifest, output)

    @property
    def _results(self) -> Path:
        return self._directory / "results"


def _files(result: KernelBundle | DiskImage) -> list[Path]:
    return [result.path] if isinstance(result, DiskImage) else [result.kernel, result.initrd]


def _manifest(result: KernelBundle | DiskImage) -> dict[str, Any]:
    fields = {key: value.name if isinstance(value, Path) else value for key, value in asdict(result).items()}
    return {"kind": type(result).__name__, **fields}


def _result(manifest: dict[str, Any], directory: Path) -> KernelBundle | DiskImage:
    match manifest:
        case {"kind": "KernelBundle", "kernel": str(kernel), "initrd": str(initrd), "command_line": str(line)}:
            return KernelBundle(directory / kernel, directory / initrd, line)
        case {"kind": "DiskImage", "path": str(path), "format": "qcow2", "virtual_size_bytes": int(size)}:
            return DiskImage(directory / path, "qcow2", size)
        case _:
            raise InternalError(
                "the manifest of a cached image cannot be read",
                code="BuildCacheDamaged",
                hint="remove Carmel's build cache and build again",
            )
