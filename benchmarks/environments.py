"""Virtual environments for sides whose libraries pin versions of their own.

Each is `benchmarks/.venvs/NAME`, made from `benchmarks/requirements/NAME.txt` by
`python -m benchmarks --setup`. It is made again when its list has changed.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAMES = tuple(sorted(path.stem for path in (HERE / "requirements").glob("*.txt")))


class EnvironmentMissing(Exception):
    """It has not been made, or its list has changed since; the message says how to make it."""


def python_of(name: str) -> Path:
    """The interpreter of an environment; "main" is this one."""
    if name == "main":
        return Path(sys.executable)
    if not _is_current(name):
        raise EnvironmentMissing(
            f"its environment {name!r} is not there or not up to date: python -m benchmarks --setup"
        )
    return _python(name)


def set_up() -> None:
    """Make the environments that are missing or out of date."""
    for name in NAMES:
        if _is_current(name):
            print(f"{name}: ready")
            continue
        print(f"{name}: installing", flush=True)
        folder = HERE / ".venvs" / name
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        # In the root, where "-e ." in a list is this package.
        install = [str(_python(name)), "-m", "pip", "install", "--quiet", "-r", str(_list(name))]
        subprocess.run(install, cwd=ROOT, check=True)
        _stamp(name).write_text(_list(name).read_text())


def _is_current(name: str) -> bool:
    stamp = _stamp(name)
    return stamp.is_file() and stamp.read_text() == _list(name).read_text()


def _list(name: str) -> Path:
    return HERE / "requirements" / f"{name}.txt"


def _stamp(name: str) -> Path:
    return HERE / ".venvs" / name / "installed.txt"


def _python(name: str) -> Path:
    folder = HERE / ".venvs" / name
    windows = folder / "Scripts" / "python.exe"
    return windows if windows.is_file() else folder / "bin" / "python"
