"""A small classifier, and a real server of it on a free port of this machine."""

import tempfile

import numpy as np
import pytest
import soundfile

import toy
from browsing import browser, launch  # noqa: F401
from serving import make_classifier, running
from unfreeze import SoundClassifier
from unfreeze.pipeline.thresholds import count


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """Knows high tones, low tones, and noise under a name that would run as a script."""
    return make_classifier(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def several(tmp_path_factory):
    """The same, but it judges each class by itself."""
    return make_classifier(tmp_path_factory.mktemp("several"), activation="sigmoid")


@pytest.fixture(scope="session")
def counted(classifier):
    """The same, with what thresholds did in an hour of background."""
    table = np.eye(3)[np.arange(60) % 3]
    table[30:] = 0
    rng = np.random.default_rng(0)
    peaks = np.clip(0.6 * table + rng.uniform(0, 0.5, table.shape), 0.01, 0.99)
    counts = count(classifier.labels, table, peaks, np.full(60, 120.0), 30)
    return SoundClassifier(classifier.model, {"threshold_counts": counts.as_plain()})


@pytest.fixture
def serve():
    """`running`, for tests that need limits or classifiers of their own."""
    return running


@pytest.fixture(scope="module")
def url(classifier):
    """The address of a server with the usual limits, shared by a file's tests."""
    with running(classifier) as address:
        yield address


@pytest.fixture
def no_lingering(monkeypatch):
    """Refusals end at once: Starlette's client never says that it has sent everything."""
    monkeypatch.setattr("unfreeze.serve.answers._LINGER_SECONDS", 0.0)


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder in which the server keeps what it is sent, for as long as it needs it."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def two_sounds(tmp_path_factory):
    """Two seconds of a high tone, then two of a low one."""
    rng = np.random.default_rng(5)
    time = np.arange(2 * toy.RATE) / toy.RATE
    tones = [0.3 * np.sin(6.283 * pitch * time) for pitch in (2500, 250)]
    sound = np.concatenate(tones) + 0.01 * rng.normal(size=4 * toy.RATE)
    path = tmp_path_factory.mktemp("sounds") / "two sounds.wav"
    soundfile.write(path, sound, toy.RATE)
    return path


@pytest.fixture
def session(reviewed, tmp_path):
    """A review of the toy recordings."""
    from reviewing import LENGTH, PROGRAM
    from unfreeze.review.review_session import ReviewSession
    from unfreeze.search.index_folder import open_index

    folder, _ = reviewed
    made = ReviewSession(
        folder / "run", open_index(folder / "index"), tmp_path / "review",
        length=LENGTH, program=PROGRAM,
    )  # fmt: skip
    yield made
    made.close()
