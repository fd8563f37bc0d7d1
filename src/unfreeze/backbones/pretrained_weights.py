"""Find a backbone's weights, or download them once; never use unverified ones.

Tried in this order: a path from the user or the environment variable; the
cache; the network sources of the backbone. Whatever the source, the result is
one `.safetensors` file whose tensors have the pinned sha256. (Of EfficientAT none is known:
there the names and shapes are checked, and the file in the cache must have the sha256 of the
tensors that came into it.) One process downloads at a time; others wait for it and then find
the weights in the cache.

Layout: `<cache>/weights/<name>.safetensors` and a `.lock` beside it, where
`<cache>` is UNFREEZE_CACHE or the user's cache folder.
"""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import platformdirs

from unfreeze.backbones import licence
from unfreeze.backbones.weight_files import (
    Progress,
    Tensors,
    WeightsSpec,
    check_tensors,
    read_metadata,
    read_tensors,
    tensor_digest,
    write_safetensors,
)
from unfreeze.errors import WeightsError

# A little more than the slowest download from two sources may take.
_LOCK_SECONDS = 1_300


@dataclass(frozen=True)
class WeightsStatus:
    """Where a backbone's weights are on this machine; they are not verified.

    Attributes:
        name: the backbone's name.
        path: the file that would be used.
        found_by: "UNFREEZE_..._WEIGHTS" (the variable's name) or "cache".
        present: whether the file exists.
        bytes: its size; 0 when absent.
        source: where the cached weights came from; empty if unknown.
        sha256: the checksum that its tensors must have.
    """

    name: str
    path: Path
    found_by: str
    present: bool
    bytes: int
    source: str
    sha256: str


def cache_folder() -> Path:
    """Return the root of the cache: UNFREEZE_CACHE, or the user's cache folder."""
    root = os.environ.get("UNFREEZE_CACHE")
    return Path(root).expanduser() if root else Path(platformdirs.user_cache_dir("unfreeze"))


def cached_path(spec: WeightsSpec) -> Path:
    """Return where a backbone's verified weights are kept, present or not."""
    return cache_folder() / "weights" / f"{spec.name}.safetensors"


def status(spec: WeightsSpec) -> WeightsStatus:
    """Return where a backbone's weights are; nothing is downloaded or hashed."""
    if spec.file is not None:
        size = spec.file.stat().st_size if spec.file.is_file() else 0
        where = "its card"
        return WeightsStatus(spec.name, spec.file, where, size > 0, size, "", spec.sha256)
    own = os.environ.get(spec.env)
    path = Path(own).expanduser() if own else cached_path(spec)
    present = path.is_file()
    return WeightsStatus(
        name=spec.name,
        path=path,
        found_by=spec.env if own else "cache",
        present=present,
        bytes=path.stat().st_size if present else 0,
        source=read_metadata(path).get("source", "") if present else "",
        sha256=spec.sha256 or (read_metadata(path).get("sha256", "") if present else ""),
    )


def load_tensors(path: str | os.PathLike[str], spec: WeightsSpec) -> Tensors:
    """Read a weights file and verify it.

    Args:
        path: a `.safetensors`, `.weights.h5` or older Keras `.h5` file.
        spec: what the backbone's weights must be.

    Returns:
        float32 tensors by canonical name.

    Raises:
        WeightsError: the file is unreadable, belongs to another network, or has the
            wrong checksum.
    """
    tensors = read_tensors(Path(path), spec.shapes, spec.readers)
    if not spec.sha256 and Path(path).suffix == ".safetensors":
        # What the file says of itself finds damage.
        spec = replace(spec, sha256=read_metadata(Path(path)).get("sha256", ""))
    check_tensors(tensors, spec, str(path))
    return tensors


def verify(path: str | os.PathLike[str], spec: WeightsSpec) -> str:
    """Verify a weights file and return the sha256 of its tensors.

    The file of a network of the user's own is verified when its card is read.

    Raises:
        WeightsError: as `load_tensors`.
    """
    if spec.file is not None:
        return spec.sha256
    tensors = load_tensors(path, spec)
    return spec.sha256 or tensor_digest(tensors)


def known(spec: WeightsSpec, path: Path) -> WeightsSpec:
    """The same, with the checksum of the weights in a file, where none is pinned.

    Args:
        spec: of a backbone.
        path: from `resolve_weights`.

    Raises:
        WeightsError: as `load_tensors`.
    """
    if spec.sha256 or spec.file is not None:
        return spec
    return replace(spec, sha256=verify(path, spec))


def resolve_weights(
    spec: WeightsSpec,
    *,
    path: str | os.PathLike[str] | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
    accept_licence: bool = False,
) -> Path:
    """Return a file of verified weights; download it if necessary.

    Args:
        spec: what the backbone's weights must be.
        path: the user's own file; takes precedence over everything else.
        fetch: whether the network may be used.
        progress: called as progress(done, total) in bytes while downloading; a
            total of 0 means that it is unknown.
        accept_licence: accept the licence of the weights, where one must be accepted; it is
            remembered.

    Returns:
        A `.safetensors` file: the user's own, or the one in the cache.

    Raises:
        WeightsError: the user's file or the cached one is wrong, or the weights
            cannot be found or downloaded; the message lists what was tried. Or their
            licence must be accepted first.
    """
    settle_licence(spec, accept_licence)
    if spec.file is not None:
        _refuse_own(spec, path)
        return spec.file
    own = path if path is not None else os.environ.get(spec.env)
    if own:
        return _use_own(Path(own).expanduser(), spec, given=path is not None)
    cached = cached_path(spec)
    if cached.is_file():
        verify(cached, spec)
        return cached
    if not fetch:
        raise WeightsError(_nothing_found(spec, cached, []))
    return fetch_weights(spec, progress=progress, replace=False)


def settle_licence(spec: WeightsSpec, accept: bool) -> None:
    """Accept the licence of a backbone's weights, or refuse weights whose licence is not.

    Args:
        spec: of the weights.
        accept: whether the user accepts it now; that is remembered.

    Raises:
        WeightsError: it was not accepted; the message holds it. Or the cache cannot be
            written.
    """
    if accept and spec.licence is not None and spec.licence.must_accept:
        if not licence.is_accepted(spec.name, spec.licence, cache_folder()):
            licence.accept(spec.name, spec.licence, cache_folder())
        return
    licence.require(spec.name, spec.licence, cache_folder())


def install_file(path: str | os.PathLike[str], spec: WeightsSpec) -> Path:
    """Verify the user's file and copy its weights to the cache.

    Returns:
        The cached `.safetensors` file.

    Raises:
        WeightsError: as `load_tensors`, or the cache cannot be written.
    """
    _refuse_own(spec, path)
    tensors = load_tensors(path, spec)
    cached = cached_path(spec)
    _store(cached, tensors, spec, f"file {path}")
    if spec.beside is not None:
        spec.beside(Path(path), cached.parent)
    return cached


def fetch_weights(
    spec: WeightsSpec, *, progress: Progress | None = None, replace: bool = True
) -> Path:
    """Download weights into the cache.

    Args:
        spec: what the backbone's weights must be.
        progress: called as progress(done, total) in bytes.
        replace: download even if another process has just filled the cache.

    Returns:
        The cached `.safetensors` file.

    Raises:
        WeightsError: every source failed, or another process holds the lock.
    """
    _refuse_own(spec, spec.file)
    cached = cached_path(spec)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(cached.with_suffix(".lock"), timeout=_LOCK_SECONDS)
        with lock:
            if not replace and cached.is_file():
                verify(cached, spec)
                return cached
            tensors, label = _first_source(spec, cached, progress)
            _store(cached, tensors, spec, label)
    except filelock.Timeout as error:
        raise WeightsError(
            f"Another process has been downloading the {spec.name} weights for too long "
            f"(lock {error.lock_file}). Stop it or wait for it, then try again."
        ) from error
    except OSError as error:
        raise WeightsError(_unwritable(cached, error)) from error
    return cached


def _refuse_own(spec: WeightsSpec, path: str | os.PathLike[str] | None) -> None:
    """Refuse a file of weights for a network that has them in its own."""
    if spec.file is not None and path is not None:
        raise WeightsError(
            f"{spec.name} has its weights in {spec.file}, which its card names: there is no other "
            "file of weights to give, and nothing to download"
        )


def _use_own(path: Path, spec: WeightsSpec, *, given: bool) -> Path:
    if not path.is_file():
        origin = "the given path" if given else f"the environment variable {spec.env}"
        raise WeightsError(
            f"There is no weights file at {path} ({origin}). "
            f"Correct the path, or leave it out to use the cache or download the weights."
        )
    if path.suffix == ".safetensors":
        verify(path, spec)
        return path
    return install_file(path, spec)


def _first_source(
    spec: WeightsSpec, cached: Path, progress: Progress | None
) -> tuple[Tensors, str]:
    failures = []
    for source in spec.sources:
        with tempfile.TemporaryDirectory(prefix="unfreeze-") as folder:
            try:
                tensors = source.fetch(Path(folder), progress)
                check_tensors(tensors, spec, source.label)
                if spec.beside is not None:
                    spec.beside(Path(folder), cached.parent)
            except (WeightsError, OSError) as error:
                failures.append((source.label, str(error)))
            else:
                return tensors, source.label
    raise WeightsError(_nothing_found(spec, cached, failures))


def _store(cached: Path, tensors: Tensors, spec: WeightsSpec, source: str) -> None:
    digest = spec.sha256 or tensor_digest(tensors)
    metadata = {"backbone": spec.name, "source": source, "sha256": digest}
    try:
        write_safetensors(cached, tensors, metadata)
    except OSError as error:
        raise WeightsError(_unwritable(cached, error)) from error


def _unwritable(cached: Path, error: OSError) -> str:
    return (
        f"The cache folder {cached.parent} cannot be used: {error}. "
        f"Set UNFREEZE_CACHE to a folder that you can write to."
    )


def _nothing_found(spec: WeightsSpec, cached: Path, failures: list[tuple[str, str]]) -> str:
    if not spec.sources:
        return (
            f"The weights of {spec.name} are not on this machine, and you download them yourself, "
            f"once: get {spec.url}, then run `{spec.fetch_command}`, or give the file with "
            f"--weights. ({spec.env} may name it, too.)"
        )
    lines = [f"Could not find or download the {spec.name} weights. Tried:"]
    lines += [f"  - {spec.env}: not set", f"  - the cache: no file {cached}"]
    lines += [f"  - {label}: {cause}" for label, cause in failures]
    if not failures:
        lines.append("  - the network: not tried")
    lines.append(
        f"What you can do: with a network, run `{spec.fetch_command}`. Without one, copy "
        f"{spec.own_file}, or the cached file of another machine, to this machine and run "
        f"`unfreeze weights --path FILE --backbone {spec.name}`, or set {spec.env} to its path."
    )
    return "\n".join(lines)
