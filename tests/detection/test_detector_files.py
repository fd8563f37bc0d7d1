"""`SoundClassifier.scan`, `detect`, `detect_files` on a real (small) model and real files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import toy
from toy_detection import scene_samples
from unfreeze import SoundClassifier
from unfreeze.detection.events import DetectOptions
from unfreeze.errors import DataError, UnfreezeError

TRUE = [(5.0, 8.0, "high"), (12.0, 14.5, "low")]


def tones(events):
    return [(e.start, e.end, e.label) for e in events if e.label != "noise"]


@pytest.mark.on_each_backend
@pytest.mark.parametrize("options", [{}, {"hop": 0.12}, {"smooth": True}, {"window": 1.92}])
def test_the_events_of_a_scene_are_found_at_their_times(classifier, scene, options):
    found = tones(classifier.detect(scene, **options))
    assert [label for *_, label in found] == ["high", "low"]
    for (start, end, _), (begin, stop, _) in zip(TRUE, found, strict=True):
        # No more than half a window off (the longer one: a whole patch).
        assert abs(begin - start) <= options.get("window", 0.96) / 2
        assert abs(stop - end) <= options.get("window", 0.96) / 2


@pytest.mark.on_each_backend
def test_the_mean_of_the_patch_scores_is_the_prediction(classifier, scene):
    blocks = list(classifier.scan(scene))
    scores = np.concatenate([block.scores for block in blocks])
    np.testing.assert_allclose(scores.mean(axis=0), classifier.predict(scene), atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert blocks[-1].ends[-1] == 20.0


def test_a_lower_score_finds_no_less_and_none_below_it(classifier, scene):
    few, many = (classifier.detect(scene, min_score=s, merge=False) for s in (0.95, 0.3))
    assert {(e.start, e.label) for e in few} <= {(e.start, e.label) for e in many}
    assert min(e.score for e in few) >= 0.95
    assert min(e.score for e in many) >= 0.3


def test_thresholds_are_the_runs_own_where_it_has_some(classifier):
    assert classifier.thresholds.tolist() == [0.5, 0.5, 0.5]
    known = {"thresholds": {"low": 0.8, "high": 0.3, "unknown": 0.1}}
    tuned = SoundClassifier(classifier.model, known)
    assert dict(zip(tuned.labels, tuned.thresholds.tolist(), strict=True)) == {
        "high": 0.3, "low": 0.8, "noise": 0.5,
    }  # fmt: skip
    assert tuned.detector(DetectOptions()).thresholds.tolist() == [0.3, 0.8, 0.5]
    assert tuned.detector(DetectOptions(min_score=0.6)).thresholds.tolist() == [0.6] * 3


def test_settings_that_cannot_work_are_refused_at_once(classifier, scene):
    with pytest.raises(UnfreezeError, match="hop"):
        classifier.scan(scene, hop=2)
    with pytest.raises(UnfreezeError, match="window"):
        classifier.detect(scene, window=1)
    with pytest.raises(UnfreezeError, match="score"):
        classifier.detect(scene, min_score=0)


def test_a_file_that_cannot_be_read_is_an_error(classifier, tmp_path):
    with pytest.raises(DataError, match=r"none\.wav"):
        classifier.detect(tmp_path / "none.wav")


def test_an_iteration_that_is_given_up_closes_the_file(classifier, scene):
    blocks = classifier.scan(scene, hop=0.01)
    next(blocks)
    blocks.close()
    names = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert scene not in names


def test_many_files_give_what_each_gives_alone(classifier, scene, tmp_path):
    rng = np.random.default_rng(2)
    files = []
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        first = int(rng.integers(0, 15) * toy.RATE)
        count = int(rng.uniform(0.2, 5) * toy.RATE)
        soundfile.write(path, scene_samples()[first : first + count], toy.RATE)
        files.append(path)
    (tmp_path / "bad.wav").write_text("no sound")
    files[3:3] = [tmp_path / "bad.wav", scene]
    sizes = []
    found = {f.number: f for f in classifier.detect_files(files, progress=sizes.append)}
    assert sorted(found) == list(range(len(files)))
    assert sizes[-1] == pytest.approx(sum(path.stat().st_size for path in files))
    assert sizes == sorted(sizes)
    assert isinstance(found[3].error, DataError)
    for number, path in enumerate(files):
        if number == 3:
            continue
        alone = classifier.detect(path)
        assert tones(found[number].events) == tones(alone)
        np.testing.assert_allclose(
            [e.score for e in found[number].events], [e.score for e in alone], atol=1e-5
        )
        assert found[number].sample_rate == toy.RATE
        assert found[number].seconds == pytest.approx(soundfile.info(path).duration)


def test_memory_does_not_grow_with_the_recording(toy_run, tmp_path):
    paths = [tmp_path / f"{minutes}.wav" for minutes in (3, 15)]
    for path, minutes in zip(paths, (3, 15), strict=True):
        with soundfile.SoundFile(path, "w", toy.RATE, 1, "PCM_16") as file:
            minute = scene_samples(60)
            for _ in range(minutes):
                file.write(minute)
    code = (
        "import resource, sys\nfrom unfreeze.backend import import_keras\nimport_keras()\n"
        "import unfreeze\nc = unfreeze.SoundClassifier.load(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    assert c.detect(path)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, toy_run, *paths], capture_output=True, text=True, check=True
    )
    short, long = map(int, done.stdout.split())
    # 12 minutes more are 46 MB of samples, or 18 MB of frames.
    assert long < short + 12_000
