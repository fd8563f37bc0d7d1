"""Build the package, check what was built, and try the wheel as a user would.

    python tools/release.py            # writes dist/; the demo trains for minutes
    python tools/release.py --quick    # without the demo, as .ci/run does

The wheel is installed in a new virtual environment and run from an empty folder, so that a file
that it lacks is missed here and not by users. Nothing is published.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the demo")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files")
    parser.add_argument(
        "--shared", action="store_true", help="use the libraries that are installed already"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("unfreeze-*"):
        old.unlink()
    run([sys.executable, "-m", "build", "--outdir", given.out, ROOT], ROOT)
    (wheel,) = given.out.glob("*.whl")
    (archive,) = given.out.glob("*.tar.gz")
    run([sys.executable, "-m", "twine", "check", "--strict", wheel, archive], ROOT)
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        try_wheel(wheel, Path(folder), given.shared, given.quick)
    print(f"{wheel.name} and {archive.name} are good")


def check_contents(wheel: Path) -> None:
    """Every file of the package is in the wheel, and nothing else."""
    package = ROOT / "src" / "unfreeze"
    wanted = {
        f"unfreeze/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    if held != wanted:
        raise SystemExit(f"{wheel.name}: missing {wanted - held}, not ours {held - wanted}")


def try_wheel(wheel: Path, folder: Path, shared: bool, quick: bool) -> None:
    """Install the wheel where nothing of the checkout is seen, and use it."""
    venv.create(folder / "venv", with_pip=True, system_site_packages=False)
    binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [binaries / "python", "-m", "pip", "install", "--quiet"]
    if shared:
        # The libraries of the environment that runs this, without the package itself.
        site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
        (own,) = (folder / "venv").rglob("site-packages")
        (own / "shared.pth").write_text(f"{site}\n", "utf-8")
        run([*pip, "--no-deps", "--force-reinstall", wheel], folder)
    else:
        run([*pip, f"{wheel}[tensorflow]"], folder)
    told = run([binaries / "python", "-c", _WHERE], folder)
    if not Path(told).is_relative_to(folder.resolve()):
        raise SystemExit(f"{told}: this is not the wheel")
    version = run([binaries / "unfreeze", "--version"], folder).removeprefix("unfreeze ")
    if not re.match(rf"unfreeze-{re.escape(version)}-", wheel.name):
        raise SystemExit(f"{wheel.name} says that it is version {version}")
    run([binaries / "unfreeze", "--help"], folder)
    run([binaries / "python", "-c", _EVERY_NAME], folder)
    if not quick:
        print(run([binaries / "unfreeze", "demo", "--out", folder / "demo"], folder)[-400:])


_WHERE = "import unfreeze; print(unfreeze.__file__)"
_EVERY_NAME = "import unfreeze; [getattr(unfreeze, name) for name in unfreeze.__all__]"


def run(command: list[str | Path], folder: Path) -> str:
    """Run a command in a folder; stop with all that it printed if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
