"""Disk space for caches: how large they may be, and which are removed first.

A cache is a folder that can be computed again; its modification time is its last use.
Invariants: a cache whose `.lock` another process holds is never removed; no other
process finds a half-removed cache that looks whole.
"""

import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from unfreeze.files import remove_dead_folders

LOCK = ".lock"
"""The file in a cache that a process holds while it builds the cache in place."""

# Older folders are of killed processes: a live one writes all the time.
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class CacheRoom:
    """Where caches are kept and how large one may be.

    Attributes:
        folder: holds all of them.
        limit: bytes; None means half of the disk's free space.
    """

    folder: Path
    limit: int | None = None

    def allowed(self) -> int:
        """Bytes that a new cache may take."""
        if self.limit is not None:
            return self.limit
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        return shutil.disk_usage(there).free // 2

    def sweep(self) -> None:
        """Remove half-written caches of killed processes."""
        with suppress(OSError):
            remove_dead_folders(self.folder)
        # Those that `remove_cache` did not finish, and those of earlier versions.
        for partial in self.folder.glob(".partial-*"):
            # Another process may remove it too.
            with suppress(OSError):
                newest = max(f.stat().st_mtime for f in (partial, *partial.iterdir()))
                if time.time() - newest > _STALE_SECONDS:
                    shutil.rmtree(partial, ignore_errors=True)


def make_room(caches: Iterable[Path], limit: int, keep: Path | None = None) -> None:
    """Remove the least recently used caches until all together are within `limit` bytes.

    Args:
        caches: their folders; those that vanish meanwhile are skipped.
        limit: bytes.
        keep: a cache that is counted but never removed.
    """
    found: list[tuple[float, int, Path]] = []
    for cache in caches:
        # Another process may remove it just now.
        with suppress(OSError):
            size = sum(f.stat().st_size for f in cache.iterdir() if f.is_file())
            found.append((cache.stat().st_mtime, size, cache))
    total = sum(size for _, size, _ in found)
    for _, size, cache in sorted(found):
        if total <= limit:
            return
        if cache != keep and remove_cache(cache):
            total -= size


def remove_cache(cache: Path) -> bool:
    """Remove a cache; False if another process is building it or it cannot be removed."""
    with suppress(OSError, filelock.Timeout):
        if (cache / LOCK).exists():
            # A process that builds it next waits for the lock.
            with filelock.FileLock(cache / LOCK, blocking=False):
                shutil.rmtree(cache)
        else:
            # Renamed first: another process must not find a half-removed folder. A process
            # that reads from it can continue (except on Windows, where the renaming fails).
            gone = cache.with_name(f".partial-{secrets.token_hex(4)}-{cache.name}")
            cache.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        return True
    return False
