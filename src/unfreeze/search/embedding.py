"""From recordings to an index: each recording is read once, on all cores, and can be resumed.

Recordings that are short are finished in groups (`unfreeze.detection.scan.neighbours`), since
their last windows share a batch of the network. A group is added to the index as a whole. So a
killed run that is repeated ends with the same numbers to the bit: groups are those of all
recordings that are given. (The order of the recordings may differ, as it may without a kill.)
Recordings that are added to a finished index are other groups than those of one run over all:
their numbers are then the same but for the last digit.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from unfreeze.audio.clip_model import notice_of
from unfreeze.audio.cluster import Cluster
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.entries import is_of_silence
from unfreeze.audio.sound_file import file_size
from unfreeze.detection.cluster_scan import ClusterScan, scan_on
from unfreeze.detection.detector import hop_steps
from unfreeze.detection.scan import Begun, Ended, Read, Scan, neighbours, scan_files
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import DataError, RunError, UnfreezeError, show
from unfreeze.files import plain_path, write_text
from unfreeze.output_folder import differences
from unfreeze.search.encoder import (
    Encoder,
    copy_of_run,
    digest,
    model_file,
    open_encoder,
    open_vectors,
    open_vectors_and_scores,
    usable_backbone,
    write_encoder,
    write_head,
)
from unfreeze.search.index_folder import (
    ENCODER,
    FORMAT,
    HEAD,
    JOURNAL,
    LICENCE,
    Finished,
    Index,
    IndexWriter,
    Settings,
    held_index,
    open_index,
    read_index_settings,
)

#: The backbone of an index without a run.
BACKBONE = "yamnet"


@dataclass(frozen=True)
class Embedded:
    """What has become of a recording.

    Attributes:
        recording: the file.
        windows: that were added.
        seconds: of sound.
        error: why it could not be read to its end, and was left out; or None.
        warnings: what else is wrong with the file, a clause each.
    """

    recording: Path
    windows: int
    seconds: float
    error: Exception | None
    warnings: tuple[str, ...]


def embed(
    recordings: Sequence[str | Path],
    out: str | Path,
    *,
    run: str | Path | None = None,
    backbone: str | None = None,
    hop: float | None = None,
    accept_licence: bool = False,
    overwrite: bool = False,
    cluster: Cluster | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_recording: Callable[[Embedded], None] | None = None,
) -> Index:
    """Make an index of recordings, or add them to one.

    Recordings that are in the index already are not read again, unless they have changed.

    Args:
        recordings: the files.
        out: folder of the index.
        run: the folder of a finished run, or a `.keras` file: vectors are what its head reads,
            and the index holds its probabilities. An index that exists keeps its own model.
        backbone: without a run, the network, by its name; None takes YAMNet.
        hop: seconds from one window to the next; None takes a window's length.
        accept_licence: accept that of the backbone's weights.
        overwrite: begin again, whatever is in the index.
        cluster: where the recordings are read; None reads them on this machine.
        on_progress: called with the bytes of files that are done.
        on_recording: called when a recording is finished, or cannot be read and is left out.

    Returns:
        The index, open for reading.

    Raises:
        UnfreezeError: options that cannot be used; nothing is written.
        DataError: no recording is given, or the index is damaged.
        RunError: the index was made with another model or other settings, another process
            is writing to it, or it cannot be written.

    Examples:
        >>> files = sorted(Path("recordings").rglob("*.wav"))
        >>> index = unfreeze.embed(files, "an_index", run="run")
        >>> len(index.recordings), index.labels
        (24, ('high', 'low', 'noise'))
    """
    out, run = Path(out), None if run is None else Path(run)
    files = list(dict.fromkeys(plain_path(Path(path)) for path in recordings))
    if not files:
        raise DataError("No recordings are given")
    if run is not None and backbone is not None:
        raise UnfreezeError("--run has a network of its own: leave out --backbone")
    network = None if run is not None else usable_backbone(backbone or BACKBONE, accept_licence)
    with Decoders() as decoders, held_index(out, overwrite) as begun:
        if begun:
            settings = read_index_settings(out)
            encoder = _encoder_of_index(out, settings)
            given = None if backbone is None or network is None else network.name
            _refuse_others(out, settings, encoder, run, given, hop)
            # Those that are there by another name keep it.
            index = open_index(out)
            known = [index.recording(path) for path in files]
            files = [a.path if a else b for a, b in zip(known, files, strict=True)]
            files = list(dict.fromkeys(files))
        else:
            if network is None:
                assert run is not None
                copy_of_run(run, out / ENCODER)
            else:
                write_encoder(network, out / ENCODER)
            # From the file, as when the index is added to.
            encoder = open_encoder(out / ENCODER, with_run=network is None)
            if encoder.labels:
                write_head(encoder, out / HEAD)
            notice = notice_of(encoder.clip_model)
            if notice:
                write_text(out / LICENCE, notice + "\n")
            of = "run" if network is None else network.name
            settings = _settings(encoder, digest(out / ENCODER), of, hop)
        writer = IndexWriter(out, settings, overwrite=not begun)
        try:
            todo = writer.unfinished(files)
            groups = _groups(files, todo)
            scan = _scan_on(cluster, out, settings)
            _add(
                *(encoder, settings, todo, groups, writer),
                *(decoders, scan, on_progress, on_recording),
            )
        finally:
            writer.close()
        return open_index(out)


def _scan_on(cluster: Cluster | None, out: Path, settings: Settings) -> ClusterScan | None:
    opens = open_vectors_and_scores if settings.labels else open_vectors
    return scan_on(cluster, partial(shutil.copyfile, out / ENCODER), opens)


def open_index_encoder(index: Index) -> Encoder:
    """Load the model that made an index, for example clips.

    Raises:
        RunError: it is damaged, or not the one that made the index.
    """
    return _encoder_of_index(index.folder, index.settings)


def vectors_of(encoder: Encoder, settings: Settings, recording: Path) -> Finished:
    """The vectors of a recording that is not in an index, as those in it are.

    Raises:
        DataError: it cannot be read.
    """
    results: list[Finished] = []
    errors: list[Exception] = []

    def note(item: Embedded) -> None:
        if item.error is not None:
            errors.append(item.error)

    with Decoders() as decoders:
        for found in _finished(
            encoder, settings, [recording], [range(1)], decoders, None, None, note
        ):
            results += found
    if errors:
        raise errors[0]
    return results[0]


def _encoder_of_index(folder: Path, settings: Settings) -> Encoder:
    file = folder / ENCODER
    if not file.is_file() or digest(file) != settings.encoder:
        what = "is not the model that made the index" if file.is_file() else "is missing"
        raise RunError(
            f"{show(file)} {what}: make the index again with `unfreeze embed --overwrite`"
        )
    return open_encoder(file, with_run=bool(settings.labels))


def _settings(encoder: Encoder, model: str, of: str, hop: float | None) -> Settings:
    front = encoder.front_end
    second = front.step / front.sample_rate
    steps = front.patch_samples // front.step if hop is None else hop_steps(front, hop)
    return Settings(
        format=FORMAT,
        encoder=model,
        of=of,
        numbers=encoder.numbers,
        labels=encoder.labels,
        several=encoder.several,
        hop=steps * second,
        window=front.patch_seconds,
        low_hz=front.low_hz,
        high_hz=front.high_hz,
    )


def _refuse_others(
    out: Path,
    before: Settings,
    encoder: Encoder,
    run: Path | None,
    backbone: str | None,
    hop: float | None,
) -> None:
    """Refuse to add to an index with another model or hop than it was made with."""
    now = before
    if run is not None:
        now = replace(now, of="run", encoder=digest(model_file(run)))
    elif backbone is not None:
        now = replace(now, of=backbone)
    if hop is not None:
        now = replace(now, hop=_settings(encoder, before.encoder, "", hop).hop)
    changed = differences(before.as_plain(), now.as_plain())
    if changed:
        raise RunError(
            f"{show(out / JOURNAL)} was begun with other settings ({'; '.join(changed)}): use "
            "those, give another --out, or begin again with --overwrite"
        )


def _groups(files: Sequence[Path], todo: Sequence[Path]) -> list[range]:
    """Which of the recordings that are left share batches: those that would have from the start.

    A recording that could not be read is left again, and must not move the others.
    """
    group_of = {files[i]: n for n, group in enumerate(neighbours(files)) for i in group}
    numbers = [group_of[path] for path in todo]
    begins = [i for i in range(len(todo)) if not i or numbers[i] != numbers[i - 1]]
    return [range(a, b) for a, b in pairwise([*begins, len(todo)])]


def _add(
    encoder: Encoder,
    settings: Settings,
    todo: Sequence[Path],
    groups: Sequence[range],
    writer: IndexWriter,
    decoders: Decoders,
    scan: Scan | None,
    on_progress: Callable[[float], None] | None,
    on_recording: Callable[[Embedded], None] | None,
) -> None:
    told = on_recording or (lambda item: None)
    for group in _finished(encoder, settings, todo, groups, decoders, scan, on_progress, told):
        if group:
            writer.add(group)
        for item in group:
            told(Embedded(item.recording, len(item.vectors), item.seconds, None, item.warnings))


@dataclass
class _Partly:
    """A recording that is being read."""

    vectors: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    begun: Begun | None = None
    warnings: tuple[str, ...] = ()

    def add(self, block: ScoreBlock, numbers: int, exempt: np.ndarray) -> None:
        """Take the outputs of an encoder; in digital silence, nothing is heard.

        Its vector is 0, so that it is like nothing: what a network makes of it says nothing.
        """
        heard = replace(block, scores=block.scores[:, numbers:]).without_silence(exempt)
        # What is too large for float16 becomes infinite, and is refused at the end.
        with np.errstate(over="ignore"):
            vectors = block.scores[:, :numbers].astype(np.float16)
            self.scores.append(heard.scores.astype(np.float16))
        if block.silent is not None:
            vectors[block.silent] = 0
        self.vectors.append(vectors)
        self.seconds = float(block.ends[-1])

    def finished(self, path: Path, numbers: int, classes: int) -> Finished:
        """What the recording adds to an index.

        Raises:
            DataError: the network's numbers cannot be kept.
        """
        vectors = np.concatenate([*self.vectors, np.zeros((0, numbers), np.float16)])
        scores = np.concatenate([*self.scores, np.zeros((0, classes), np.float16)])
        if not (np.isfinite(vectors).all() and np.isfinite(scores).all()):
            raise DataError(
                f"{show(path)}: the network gives numbers for it that are too large or not finite"
            )
        rate = 0 if self.begun is None else self.begun.sample_rate
        return Finished(path, vectors, scores, self.seconds, rate, self.warnings)


def _finished(
    encoder: Encoder,
    settings: Settings,
    paths: Sequence[Path],
    groups: Sequence[range],
    decoders: Decoders,
    scan: Scan | None,
    on_progress: Callable[[float], None] | None,
    on_error: Callable[[Embedded], None],
) -> Iterator[list[Finished]]:
    """Yield the recordings of each group that could be read, when the group is finished."""
    front = encoder.front_end
    hop = round(settings.hop * front.sample_rate / front.step)
    numbers, classes = encoder.numbers, len(encoder.labels)
    exempt = np.array([is_of_silence(label) for label in encoder.labels], bool)
    group_of = {number: group for group in groups for number in group}
    partly: dict[int, _Partly] = {}
    waiting: dict[range, list[Finished | None]] = {}
    done, shares, told = 0.0, dict[int, float](), 0.0
    for number, item in scan_files(
        encoder.model, front, paths, hop, decoders=decoders, groups=groups, scan=scan
    ):
        mine = partly.setdefault(number, _Partly())
        if isinstance(item, Begun):
            mine.begun = item
        elif isinstance(item, Read):
            mine.warnings = item.warnings
        elif isinstance(item, ScoreBlock):
            mine.add(item, numbers, exempt)
            length = mine.begun.seconds if mine.begun else 0.0
            share = min(float(item.ends[-1]) / max(length, 1e-3), 1.0)
            shares[number] = share * file_size(paths[number])
        elif isinstance(item, Ended):
            del partly[number]
            shares.pop(number, None)
            done += file_size(paths[number])
            made, error = None, item.error
            try:
                made = mine.finished(paths[number], numbers, classes) if error is None else None
            except DataError as unusable:
                error = unusable
            if error is not None:
                on_error(Embedded(paths[number], 0, 0.0, error, mine.warnings))
            members = waiting.setdefault(group_of[number], [])
            members.append(made)
            if len(members) == len(group_of[number]):
                yield [found for found in waiting.pop(group_of[number]) if found is not None]
        if on_progress is not None:
            told = max(told, done + sum(shares.values()))
            on_progress(told)
