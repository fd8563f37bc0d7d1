"""Fixtures that every room of the tests shares."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# One thread for each of pytest's processes: they are as many as the cores already, and
# results to the bit do not depend on how threads share a sum.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import filelock
import numpy as np
import pytest
from hypothesis import settings

from unfreeze.backbones import birdnet_spec, licence, pretrained_weights, yamnet_spec
from unfreeze.errors import WeightsError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On a busy machine an example that takes a millisecond may take half a second.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure():
    """Hear Ctrl-C: started by a shell in the background, we and our children would not."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Look for garbage less often, and not among what is imported: it took a 20th of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def pytest_itemcollected(item):
    """Count a test that is slow on this backend among the slow ones; skip it on others than its.

    One that would run nowhere is refused: all run on PyTorch, or are marked to run elsewhere.
    """
    slow, needed = (
        {name for marker in item.iter_markers(kind) for name in marker.args}
        for kind in ("slow_on", "needs_backend")
    )
    if not slow | needed:
        return
    elsewhere = item.get_closest_marker("on_each_backend") and "tensorflow" not in slow
    left_out = "torch" in slow or (needed and "torch" not in needed)
    if left_out and not elsewhere and "tensorflow" not in needed - slow:
        raise pytest.UsageError(f"{item.nodeid} would run on no backend")
    import keras

    if keras.backend.backend() in slow:
        item.add_marker(pytest.mark.slow)
    if needed and keras.backend.backend() not in needed:
        item.add_marker(pytest.mark.skip(reason=f"needs Keras on {' or '.join(sorted(needed))}"))


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Threads cost more than they give on layers this small, on a busy machine 30 times more."""
    if os.environ.get("KERAS_BACKEND") == "torch":
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """A hundredth of a second for each small file; tests of power cuts count the calls alone."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        # A file that is not open is still refused.
        monkeypatch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def review_home(tmp_path_factory):
    """A folder with a run, recordings to review with it and their index; what is in them."""
    # It needs Keras, and most tests that see this file do not.
    import reviewing

    folder = tmp_path_factory.mktemp("reviewed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        truth = reviewing.make_home(folder, monkeypatch)
    # Not from within the block: what it patches must not reach other tests.
    return folder, truth


@pytest.fixture
def reviewed(review_home, monkeypatch):
    """The same, with the toy backbone known for as long as a test runs."""
    import toy

    toy.register(monkeypatch, review_home[0])
    return review_home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings for trials; not part of the project."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("UNFREEZE_TEST_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test recordings at {folder} (set UNFREEZE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def yamnet_weights() -> Path:
    """The verified weights of YAMNet, from the cache or fetched once."""
    try:
        return pretrained_weights.resolve_weights(yamnet_spec.YAMNET_WEIGHTS)
    except WeightsError as error:
        _give_up(f"no weights of YAMNet: {error}")


@pytest.fixture(scope="session")
def yamnet_saved_model() -> Path:
    """Google's own graph as a SavedModel, kept in the cache for the tests alone."""
    return _kept("yamnet_saved_model", yamnet_spec.fetch_saved_model, "reference graph of YAMNet")


@pytest.fixture(scope="session")
def google_yamnet(yamnet_saved_model: Path) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """Google's graph: a waveform in; scores, embeddings and log-mel frames out."""
    tensorflow = pytest.importorskip("tensorflow")
    model = tensorflow.saved_model.load(str(yamnet_saved_model))
    # The published graph sits inside a wrapper that keeps one class only.
    graph = getattr(model, "layer-1").layer._func

    def run(waveform: np.ndarray) -> tuple[np.ndarray, ...]:
        scores, embeddings, log_mel = graph(waveform.astype(np.float32))
        return scores.numpy(), embeddings.numpy(), log_mel.numpy()

    run.model = model  # keeps the graph's variables alive
    return run


@pytest.fixture(scope="session")
def birdnet_folder() -> Path:
    """A folder with BirdNET's published TFLite file and its list of classes.

    Kept in the cache for the tests alone, and only where its licence was accepted.
    """
    cache = pretrained_weights.cache_folder()
    if not licence.is_accepted("birdnet", birdnet_spec.LICENCE, cache):
        pytest.skip(f"the licence of BirdNET's weights was not accepted ({licence.VARIABLE})")
    return _kept("birdnet", birdnet_spec.fetch_published, "published file of BirdNET")


def _kept(name: str, fetch: Callable[[Path], object], what: str) -> Path:
    """A folder in the cache that is filled once, whichever of pytest's processes comes first."""
    folder = pretrained_weights.cache_folder() / "tests" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock"), timeout=900):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                fetch(partial)
                partial.rename(folder)
            except WeightsError as error:
                _give_up(f"no {what}: {error}")
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _give_up(reason: str) -> NoReturn:
    # In CI a missing file must not hide a failure.
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
