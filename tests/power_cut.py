"""What a disk would hold after a power cut, for tests.

While it watches a folder, it notes at each fsync, rename and removal what is safe:
of a file the bytes at its last fsync, of a folder the names at its last fsync.
Anything else may be lost. Names may also reach the disk early, before the bytes
that belong to them; so there are two pictures of each moment: with the safe names
and with all names, both with the safe bytes alone.
"""

import os
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

OPERATIONS = ("fsync", "replace", "rename", "unlink")


class Disk:
    """A folder that is watched.

    Attributes:
        pictures: (operation, {path below the folder: bytes}), two of each moment.
    """

    def __init__(self, root):
        self.root, self.pictures = Path(root), []
        self._bytes, self._names, self._held = {}, {}, []
        for folder, _, files in os.walk(self.root):
            self._note(os.open(folder, os.O_RDONLY))
            for name in files:
                self._note(os.open(Path(folder, name), os.O_RDONLY))

    @contextmanager
    def watched(self):
        """Take pictures during a block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            yield self
        for handle in self._held:
            os.close(handle)

    def _wrapped(self, name, operation):
        def wrapped(*args, **kwargs):
            result = operation(*args, **kwargs)
            if name == "fsync":
                self._note(os.dup(args[0]))
            self.take(name if name == "fsync" else f"{name} {Path(args[-1]).name}")
            return result

        return wrapped

    def _note(self, handle):
        """What is synced now. The handle stays open, so that no new file gets its number."""
        self._held.append(handle)
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            with os.scandir(handle) as items:
                self._names[state.st_ino] = {
                    i.name: (i.inode(), i.is_dir(follow_symlinks=False)) for i in items
                }
        else:
            file = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
            self._bytes[state.st_ino] = os.pread(file, state.st_size, 0)
            os.close(file)

    def take(self, name):
        """Take both pictures now."""
        safe, early = {}, {}
        self._walk(self.root.stat().st_ino, "", safe)
        for folder, _, files in os.walk(self.root):
            for file in files:
                path = Path(folder, file)
                number = path.stat().st_ino
                early[str(path.relative_to(self.root))] = self._bytes.get(number, b"")
        self.pictures += [(f"{name}, safe names", safe), (f"{name}, all names", early)]

    def _walk(self, number, prefix, found):
        for name, (inner, is_folder) in self._names.get(number, {}).items():
            if is_folder:
                self._walk(inner, f"{prefix}{name}/", found)
            else:
                found[prefix + name] = self._bytes.get(inner, b"")


def restore(picture, folder):
    """Write a picture to a folder."""
    for name, content in picture.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder)
