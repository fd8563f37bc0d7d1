"""The readers, each as a function of bytes: only the package's own errors may come out.

`tests/test_hostile_text.py` tries them with Hypothesis, `python -m fuzz` with atheris.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml

from unfreeze.audio.feature_store import open_store
from unfreeze.audio.segments_file import (
    SEGMENTS_NAME,
    find_corrections,
    match_segments,
    read_segments,
)
from unfreeze.audio.sound_formats import begins_as_sound, foreign_format
from unfreeze.audio.sources import find_source
from unfreeze.audio.stated_length import find_misstated
from unfreeze.audio.wav import read_wav_header
from unfreeze.core.schedule_file import dump_schedule, parse_schedule, read_schedule
from unfreeze.detection.journal import Journal
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.evaluation import EVALUATION
from unfreeze.pipeline.predictions import FILE, read_predictions
from unfreeze.pipeline.scoring import score
from unfreeze.report.comparison_report import RESULT, write_comparison_report
from unfreeze.report.evaluation_report import EVENTS, write_evaluation_report
from unfreeze.report.run_report import write_run_report
from unfreeze.review.old_run import inherited_options, run_labels, run_source

T = TypeVar("T")

CONFIG = {
    "unfreeze_run": 1,
    "labels": ["a", "b"],
    "data": {"root": "/nowhere"},
    "options": {"data": "/nowhere", "backbone": "yamnet", "seed": 0, "weights": None},
}
SPLITS = "path,label,group,split\na/1.wav,a,g,train\nb/1.wav,b,g,test\n"
PREDICTIONS = (
    "path,label,group,split,predicted,score,score_a,score_b,start,end\n"
    "a/1.wav,a,g,test,a,0.9,0.9,0.1,,\nb/1.wav,b,h,test,a,0.6,0.6,0.4,1.5,3\n"
)
SCORED = score([0, 1], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"], ["g", "h"], resamples=20)
SCORES = json.dumps({"test": SCORED, "validation": None, "thresholds": {"a": 0.5}}).encode()
AUDITED = {
    "stages": [{"stage": "s", "layers": [{"weights": 1, "trainable": True, "moved": 0.5}]}],
    "notes": ["n"],
}
EVALUATED = {
    "run": "r", "root": "/nowhere", "unfreeze": "0.2", "front_end": {},
    "scores": {**SCORED, "problems": []},
}  # fmt: skip
_ESTIMATE = {"accuracy": 0.5, "interval": [0.25, 0.75]}
COMPARED = {
    "rows": [{"strategy": "s", "scores": {"test": _ESTIMATE}, "seconds": 1.0, "epochs": 2.0}],
    "differences": [], "grouped": True, "runs": 1, "seeds": 1, "groups": 2, "score": "accuracy",
    "notes": [], "verdict": ["s"],
}  # fmt: skip
SCHEDULE = """unfreeze_schedule: 1
name: mine
stages:
- name: head
  train: [transfer_*]
  epochs: 3
  learning_rate:
    schedule: ExponentialDecay
    initial_learning_rate: 0.001
    decay_steps: 10
    decay_rate: 0.9
  optimizer: {name: AdamW, weight_decay: 0.01}
  until:
    plateau: {metric: val_loss, patience: 3}
- {name: all, train: "*", epochs: 2, learning_rate: {default: 1e-4, "*_bn": 0.0}}
"""
SEGMENT = {
    "file": "a/1.wav", "sha256": "0" * 64, "source": "/x.wav", "source_sha256": "1" * 64,
    "start": 0.0, "end": 3.0, "label": "a", "score": 0.5, "margin": 0.1,
}  # fmt: skip
SEGMENTS = {"unfreeze_segments": 1, "run": "r", "command": "c", "labels": ["a", "b"],
            "segments": [SEGMENT]}  # fmt: skip


def manifest(content: bytes, folder: Path) -> None:
    """A CSV manifest, with its folder."""
    (folder / "manifest.csv").write_bytes(content)
    _may_refuse(lambda: find_source(folder))
    _may_refuse(lambda: find_source(folder, group_regex="(.)"))


def schedule(content: bytes, folder: Path) -> None:
    """A schedule; what can be read can be written, and read again."""
    file = folder / "schedule.yaml"
    file.write_bytes(content)
    read = _may_refuse(lambda: read_schedule(file))
    if read is not None:
        text = dump_schedule(read)
        assert dump_schedule(parse_schedule(text)) == text


def config(content: bytes, folder: Path) -> None:
    """A run's `config.yaml`, and all that is taken from it."""
    (folder / run_folder.CONFIG).write_bytes(content)
    (folder / run_folder.SPLITS).write_text(SPLITS)
    (folder / run_folder.METRICS).write_text("{}")
    _may_refuse(lambda: run_folder.read_config(folder))
    _may_refuse(lambda: run_folder.read_splits(folder))
    _may_refuse(lambda: run_folder.refuse_changes(folder, CONFIG))
    _may_refuse(lambda: run_labels(folder))
    _may_refuse(lambda: run_source(folder))
    _may_refuse(lambda: inherited_options(folder, folder / "clips", {}))
    _may_refuse(lambda: write_run_report(folder))


def splits(content: bytes, folder: Path) -> None:
    """A run's `splits.csv`."""
    settings = {**CONFIG, "data": {"root": str(folder)}}
    (folder / run_folder.CONFIG).write_text(yaml.safe_dump(settings))
    (folder / run_folder.SPLITS).write_bytes(content)
    _may_refuse(lambda: run_folder.read_splits(folder))
    _may_refuse(lambda: run_source(folder))


def metrics(content: bytes, folder: Path) -> None:
    """A run's `metrics.json`."""
    _run(folder)
    (folder / run_folder.METRICS).write_bytes(content)
    _may_refuse(lambda: run_folder.read_scores(folder))
    _may_refuse(lambda: write_run_report(folder))


def predictions(content: bytes, folder: Path) -> None:
    """A run's `predictions.csv`."""
    _run(folder)
    (folder / run_folder.METRICS).write_bytes(SCORES)
    (folder / FILE).write_bytes(content)
    _may_refuse(lambda: read_predictions(folder, folder))
    _may_refuse(lambda: write_run_report(folder))


def audit(content: bytes, folder: Path) -> None:
    """A run's `audit.json`; and the same as what else its report is made of."""
    for name in (run_folder.AUDIT, run_folder.NOTES, run_folder.HISTORY):
        _run(folder)
        (folder / run_folder.METRICS).write_bytes(SCORES)
        (folder / name).write_bytes(content)
        _may_refuse(lambda: write_run_report(folder))
        (folder / name).unlink()


def evaluation(content: bytes, folder: Path) -> None:
    """An `evaluation.json`; and the same as the scores of events."""
    for name in (EVALUATION, EVENTS):
        (folder / name).write_bytes(content)
        _may_refuse(lambda: write_evaluation_report(folder))
        (folder / name).unlink()


def comparison(content: bytes, folder: Path) -> None:
    """A `comparison.json`."""
    (folder / RESULT).write_bytes(content)
    _may_refuse(lambda: write_comparison_report(folder))


def _run(folder: Path) -> None:
    settings = {**CONFIG, "data": {"root": str(folder / "gone")}}
    (folder / run_folder.CONFIG).write_text(yaml.safe_dump(settings))
    (folder / run_folder.SPLITS).write_text(SPLITS)


def segments(content: bytes, folder: Path) -> None:
    """A `segments.json`, and what a person has changed since."""
    (folder / SEGMENTS_NAME).write_bytes(content)
    read = _may_refuse(lambda: read_segments(folder))
    if read is not None:
        found = match_segments(read, [folder / "1.wav"])
        find_corrections([], [], read.segments, read.labels)
        assert len(found) == 1


def journal(content: bytes, folder: Path) -> None:
    """The journal of what `predict` has finished."""
    file, recording = folder / "journal", folder / "1.wav"
    file.write_bytes(content)
    recording.touch()
    opened = _may_refuse(lambda: Journal(file, {"hop": 0.48}))
    if opened is not None:
        try:
            if not opened.unfinished([recording]):
                _may_refuse(lambda: opened.events(recording))
        finally:
            opened.close()


def store(content: bytes, folder: Path) -> None:
    """The description of a feature store; one that is odd is none."""
    (folder / "meta.json").write_bytes(content)
    assert open_store(folder) is None


def wav(content: bytes, folder: Path) -> None:
    """The chunks of a WAV file."""
    header = read_wav_header(io.BytesIO(content))
    if header is not None:
        assert 0 <= header.kept <= 1
        assert header.data_end <= max(len(content), header.data_start)


def sound(content: bytes, folder: Path) -> None:
    """The lengths and the kind of a sound file, before any decoder sees it."""
    foreign_format(content)
    begins_as_sound(content)
    found = find_misstated(io.BytesIO(content), content[:512], read_wav_header(io.BytesIO(content)))
    if found is not None:
        assert 0 <= found.view.start <= found.view.end <= len(content)
        assert found.stated >= 0
        assert found.real is None or found.real > 0


def _may_refuse(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except UnfreezeError as error:
        # A message that cannot be printed would be an error of its own.
        str(error).encode("utf-8")
        return None


#: Each reader with what it should read, to begin from.
READERS: dict[str, tuple[Callable[[bytes, Path], None], bytes]] = {
    "manifest": (manifest, b"path,label,group,split\na/1.wav,a,g,train\nb/1.wav,b,h,test\n"),
    "schedule": (schedule, SCHEDULE.encode()),
    "config": (config, yaml.safe_dump(CONFIG).encode()),
    "splits": (splits, SPLITS.encode()),
    "metrics": (metrics, SCORES),
    "predictions": (predictions, PREDICTIONS.encode()),
    "audit": (audit, json.dumps(AUDITED).encode()),
    "evaluation": (evaluation, json.dumps(EVALUATED).encode()),
    "comparison": (comparison, json.dumps(COMPARED).encode()),
    "segments": (segments, json.dumps(SEGMENTS).encode()),
    "journal": (journal, b'{"unfreeze_events": 1, "settings": {"hop": 0.48}}\n'),
    "store": (store, b'{"format": "unfreeze feature store", "version": 3, "front_end": {}}'),
    "sound": (sound, b"caff\0\1\0\0desc" + bytes(7) + b"\x20" + bytes(8) + b"lpcm" + bytes(20)),
    "flac": (sound, b"fLaC\x80\0\0\x22\x10\0\x10\0" + bytes(30) + b"\xff\xf8\x61\x08\0\0\0"),
    "mp3": (sound, b"ID3\4\0\0\0\0\0\1x" + (b"\xff\xf3\x48\xc4" + bytes(140)) * 3),
    "aiff": (sound, b"FORM\0\0\0\x0eAIFFSSND\0\0\0\xff" + bytes(20)),
    "wav": (wav, b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0data\0\0\0\0"),
}
