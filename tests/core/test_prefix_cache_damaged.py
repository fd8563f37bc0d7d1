"""A cache that is damaged, removed or cannot be written: at worst it costs time."""

import shutil

import numpy as np
import pytest

from faults import cut, flip
from small_runs import HEAD, assert_same_weights, make, run, whole
from unfreeze.core import array_files
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.schedule import Stage
from unfreeze.errors import RunError, StageError, Stopped

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The caches of a run; to be copied."""
    folder = tmp_path_factory.mktemp("filled")
    run(schedule=HEAD, cache_dir=folder)
    return folder


class UpToTheCache(StageCallback):
    """Stops a run once it has told what became of its cache."""

    def on_note(self, text):
        if text.startswith("stage 'head': "):
            self.told = text.removeprefix("stage 'head': ")
            raise Stopped


def cache_of_the_next_run(folder):
    callback = UpToTheCache()
    with pytest.raises(Stopped):
        run(schedule=HEAD, cache_dir=folder, callbacks=[callback])
    return callback.told


def remove(file):
    file.unlink()


def rubbish(file):
    file.write_bytes(b"\x00 rubbish")


DAMAGES = [
    ("part_0.bin", flip),
    ("part_0.bin", cut),
    ("part_0.bin", remove),
    ("meta.json", cut),
    ("meta.json", rubbish),
]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_what_an_earlier_run_left_is_made_anew_where_it_is_damaged(
    name, damage, held, filled, tmp_path, monkeypatch
):
    if not held:
        monkeypatch.setattr(array_files, "HELD", 0)
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    sound = {p.parent.name: p.read_bytes() for p in tmp_path.glob("*/part_0.bin")}
    for home in tmp_path.iterdir():
        damage(home / name)
    model = make()
    result = run(model, HEAD, cache_dir=tmp_path)
    assert result.stages[0].cache.startswith("cached again, because the earlier cache was damaged")
    assert_same_weights(whole(HEAD).model, model)
    assert {p.parent.name: p.read_bytes() for p in tmp_path.glob("*/part_0.bin")} == sound
    # No leavings, and the next run finds it.
    assert len(list(tmp_path.iterdir())) == 2
    assert cache_of_the_next_run(tmp_path).startswith("reused")


class Meanwhile(StageCallback):
    """Does something to the caches once an epoch has ended."""

    def __init__(self, folder, what):
        super().__init__()
        self.folder, self.what = folder, what

    def on_epoch_end(self, epoch, logs=None):
        for file in self.folder.glob("*/part_0.bin") if epoch == 0 else ():
            self.what(file)


@pytest.mark.parametrize("held", [True, False])
def test_a_cache_that_is_removed_meanwhile_is_read_to_the_end(held, tmp_path, monkeypatch):
    if not held:
        monkeypatch.setattr(array_files, "HELD", 0)
    model, gone = make(), Meanwhile(tmp_path / "c", lambda file: shutil.rmtree(file.parent))
    run(model, HEAD, cache_dir=tmp_path / "c", callbacks=[gone])
    assert list((tmp_path / "c").iterdir()) == []
    assert_same_weights(whole(HEAD).model, model)
    # Two stages on one boundary: the second makes it again.
    stages = [Stage("a", "head", epochs=2), Stage("b", "head", epochs=2, learning_rate=1e-4)]
    result = run(schedule=stages, cache_dir=tmp_path / "c", callbacks=[gone])
    assert [s.cache.split(":")[0] for s in result.stages] == ["cached", "cached"]


def test_a_small_cache_that_is_cut_short_meanwhile_does_not_matter(tmp_path):
    model = make()
    run(model, HEAD, cache_dir=tmp_path, callbacks=[Meanwhile(tmp_path, cut)])
    assert_same_weights(whole(HEAD).model, model)


def test_a_large_one_is_an_error_that_names_it(tmp_path, monkeypatch):
    """And not what the backend makes of an error in a thread of its own."""
    monkeypatch.setattr(array_files, "HELD", 0)
    with pytest.raises(RunError, match=r"part_0\.bin ends too early.*Run again"):
        run(schedule=HEAD, cache_dir=tmp_path, callbacks=[Meanwhile(tmp_path, cut)])
    model = make()
    run(model, HEAD, cache_dir=tmp_path)
    assert_same_weights(whole(HEAD).model, model)


def test_a_folder_that_cannot_be_written_is_a_reason_to_train_uncached(tmp_path):
    (tmp_path / "file").touch()
    never, model = make(), make()
    run(never, HEAD.with_changes(cache="never"))
    result = run(model, HEAD, cache_dir=tmp_path / "file" / "cache")
    reason = "it cannot be written (Not a directory)"
    assert result.stages[0].cache == f"not cached: {reason}"
    assert_same_weights(never, model)
    with pytest.raises(StageError, match=r"asks for a cache, but: it cannot be written"):
        run(
            schedule=HEAD.with_changes(cache="always"),
            cache_dir=tmp_path / "file" / "cache",
        )


def test_an_error_of_the_users_own_data_is_told_as_it_is(tmp_path):
    class Broken:
        shape, dtype, ndim = (24, 6, 6, 2), np.dtype("float32"), 4
        fingerprint = "b"

        def __len__(self):
            return 24

        def __getitem__(self, index):
            if len(np.atleast_1d(index)) > 2:
                raise RunError("recording 7 is gone")
            return np.zeros((len(index), 6, 6, 2), "float32")

    with pytest.raises(RunError, match=r"^recording 7 is gone$"):
        run(schedule=HEAD.with_changes(cache="never"), data=(Broken(), np.zeros(24, "int64")))


def test_memory_that_has_run_out_in_a_step_is_told_with_the_cure(monkeypatch):
    class Greedy:
        shape, dtype, ndim = (24, 6, 6, 2), np.dtype("float32"), 4

        def __len__(self):
            return 24

        def __getitem__(self, index):
            if len(np.atleast_1d(index)) > 2:
                raise MemoryError("Unable to allocate 7 TiB")
            return np.zeros((len(index), 6, 6, 2), "float32")

    with pytest.raises(StageError, match=r"not enough memory.*7 TiB.*smaller batch_size"):
        run(schedule=HEAD.with_changes(cache="never"), data=(Greedy(), np.zeros(24, "int64")))
