"""What each depth knows: the score of each layer group alone, the peak, and what to train."""

import json

import keras
import numpy as np
import pytest
from matplotlib.image import imread

import toy
from unfreeze.core.graph import flatten
from unfreeze.errors import DataError
from unfreeze.pipeline import depth_profile as module
from unfreeze.pipeline.depth_profile import (
    Depth,
    conclude,
    depth_profile,
    draw_rows,
    error_of_share,
    find_peak,
    why_no_profile,
)
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.planning import train_classifier

# Clips to train on, to choose by, and to test on; the test clips must play no part.
PARTS = {"train": np.arange(0, 24), "validation": np.arange(24, 44), "test": np.arange(44, 60)}
LABELS = np.arange(60) % 2


class Patches:
    """Patches in memory, with what `PatchView` has; remembers which were read."""

    def __init__(self, clips, each=2, seed=0):
        rng = np.random.default_rng([seed, *clips[:1]])
        self.clip = np.repeat(clips, each)
        self.values = rng.normal(-3, 0.5, size=(len(self.clip), 96, 64)).astype(np.float32)
        # A class is a band that is louder; how loud differs from patch to patch.
        for patch, label in zip(self.values, LABELS[self.clip], strict=True):
            patch[:, 32 * label : 32 * label + 16] += rng.uniform(1, 2)
        self.read = set()

    def __len__(self):
        return len(self.clip)

    def __getitem__(self, rows):
        self.read |= {int(row) for row in rows}
        return self.values[rows]


@pytest.fixture(scope="module")
def parts():
    return {name: Patches(PARTS[name]) for name in ("train", "validation")}


@pytest.fixture(scope="module")
def forgetful():
    """A network whose first group hears the band and whose second says nothing."""
    network = toy.build_toy()
    kernel = network.get_layer("block2_conv").kernel
    kernel.assign(np.zeros(kernel.shape))
    return network


@pytest.fixture(scope="module")
def profile(forgetful, parts):
    return depth_profile(forgetful, parts["train"], parts["validation"], LABELS)


def test_the_peak_is_where_the_answer_is(profile):
    first, second = profile.groups
    assert (first.group, second.group) == ("block1", "block2")
    assert first.scores == {"accuracy": 1, "balanced_accuracy": 1}
    # One class for all clips.
    assert second.scores["balanced_accuracy"] == 0.5
    assert (profile.peak, profile.clips, profile.chance) == ("block1", 20, 0.5)
    assert profile.summary == (
        "Of the layer groups, each read alone, block1 (1 of 2 from the input) is the first that "
        "tells the classes apart as well as any (balanced accuracy 1.00); at the last group, "
        "block2, it is 0.50."
    )
    assert json.loads(json.dumps(profile.as_plain()))["groups"][1]["group"] == "block2"


@pytest.mark.on_each_backend
def test_the_network_is_read_as_keras_runs_it(parts):
    # Every group knows this one, and BatchNorm with statistics of its own is fused.
    network = toy.build_toy()
    norm = network.get_layer("block1_bn")
    norm.moving_mean.assign(np.linspace(-1, 1, 8))
    norm.moving_variance.assign(np.linspace(0.5, 2, 8))
    graph = flatten(network)
    taps = [step for step in graph.steps if step.path.endswith("_relu")]
    found = module._tap_reader(graph, network, taps).predict_on_batch(parts["train"].values[:4])
    for step, vectors in zip(taps, found, strict=True):
        plain = np.asarray(_until(network, step.path).predict_on_batch(parts["train"].values[:4]))
        expected = plain.mean(axis=1).reshape(4, -1)
        expected /= np.sqrt(np.abs(expected) + 1e-3)
        np.testing.assert_allclose(np.asarray(vectors), expected, atol=1e-5)


def _until(network, layer):
    return keras.Model(network.inputs, network.get_layer(layer).output)


def table_of(labels):
    """Two classes that are heard together in each third clip, and neither in each fourth."""
    table = np.eye(2)[labels]
    table[::3] = 1
    table[::4] = 0
    return table


class Mixed(Patches):
    """The same, with as many louder bands as classes are heard."""

    def __init__(self, clips, table, **kwargs):
        super().__init__(clips, **kwargs)
        rng = np.random.default_rng([9, *clips[:1]])
        self.values = rng.normal(-3, 0.5, size=self.values.shape).astype(np.float32)
        for patch, heard in zip(self.values, table[self.clip], strict=True):
            for label in np.flatnonzero(heard):
                patch[:, 32 * label : 32 * label + 16] += rng.uniform(1, 2)


@pytest.fixture(scope="module")
def several(forgetful):
    table = table_of(LABELS)
    views = [Mixed(PARTS[name], table) for name in ("train", "validation")]
    return table, views, depth_profile(forgetful, *views, table)


def test_clips_with_several_labels_are_ranked(several):
    table, _, found = several
    first, second = found.groups
    assert first.scores == {"mean_average_precision": 1.0}
    # Equal scores for all clips: the share of clips in which a class is heard.
    share = table[PARTS["validation"]].mean(axis=0)
    assert second.scores["mean_average_precision"] == pytest.approx(share.mean())
    assert found.chance == pytest.approx(share.mean())
    assert (found.score, found.peak, found.clips) == ("mean_average_precision", "block1", 20)
    # All 20 are ranked rightly; another might not be.
    assert found.standard_error == pytest.approx((21 / 22 * 1 / 22 / 20) ** 0.5)
    assert "(mean average precision 1.00); at the last group, block2, it is" in found.summary
    plain = json.loads(json.dumps(found.as_plain()))
    assert plain["groups"][0] == {"group": "block1", "mean_average_precision": 1.0}


def test_what_is_not_known_of_a_clip_does_not_count(forgetful, several):
    table, views, found = several
    table = table.copy()
    # Wrong, if it counted.
    table[PARTS["train"][:8], 0] = table[PARTS["validation"][:4], 0] = -1
    again = depth_profile(forgetful, *views, table)
    assert again.groups[0].scores == found.groups[0].scores
    known = table[PARTS["validation"]]
    shares = [(column[column >= 0] > 0).mean() for column in known.T]
    assert again.chance == pytest.approx(np.mean(shares))


def test_the_classes_are_solved_as_scikit_learn_solves_each():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    values = rng.normal(size=(300, 5)).astype(np.float32)
    heard = (values[:, :3] + rng.normal(size=(300, 3)) > [0, 1, 9]).astype(float)
    heard[:50, 1] = -1
    guess = module._fit_labels([values[:100], values[100:]], heard, seed=0)
    found = guess(values)
    kernel, bias = module.principal_components(values, module.COMPONENTS, 0)
    inputs = values @ kernel + bias
    for column in range(2):
        known = heard[:, column] >= 0
        model = LogisticRegression(C=module.STRENGTH, tol=1e-6)
        model.fit(inputs[known], heard[known, column])
        expected = model.predict_proba(inputs)[:, 1]
        np.testing.assert_allclose(found[:, column], expected, atol=2e-3)
    # Never heard in training.
    assert found[:, 2].max() < 0.02


def test_rare_classes_are_drawn_first():
    table = np.zeros((6, 3))
    table[0, [0, 1]] = table[1, 0] = table[2, 0] = 1
    table[3] = -1
    # The rarest class of the first is 1; nothing is heard in the last three.
    assert module._rarest(table, np.arange(len(table))).tolist() == [1, 0, 0, 3, 3, 3]


def test_no_class_to_tell(several):
    table = several[0].copy()
    table[PARTS["validation"]] = 1
    reason = why_no_profile(table, PARTS["train"], PARTS["validation"])
    assert "a class that is heard in some of the training" in reason


def test_test_clips_play_no_part(forgetful, parts, profile):
    poisoned = LABELS.copy()
    poisoned[PARTS["test"]] = np.random.default_rng(0).integers(0, 7, len(PARTS["test"]))
    again = depth_profile(forgetful, parts["train"], parts["validation"], poisoned)
    assert again == profile


def test_nothing_is_added_to_the_network(parts):
    network = toy.build_toy()
    before = _state(network)
    seen = []
    depth_profile(
        network, parts["train"], parts["validation"], LABELS,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert _state(network) == before
    assert seen == [(48, 88), (88, 88)]


def _state(network):
    return [
        (
            layer.name,
            len(layer._inbound_nodes),
            len(layer._outbound_nodes),
            layer.trainable,
            [float(np.sum(weight)) for weight in layer.get_weights()],
        )
        for layer in network.layers
    ]


def test_large_data_are_sampled(forgetful, monkeypatch):
    monkeypatch.setattr(module, "MOST_PATCHES", 30)
    train, held = (Patches(PARTS[name], each=5) for name in ("train", "validation"))
    found = [depth_profile(forgetful, train, held, LABELS, seed=seed) for seed in (3, 3)]
    assert found[0] == found[1]
    # The same patches in both, from every clip.
    for view in (train, held):
        assert len(view.read) == 30
        assert set(view.clip[sorted(view.read)]) == set(view.clip)
    assert (found[0].peak, found[0].clips) == ("block1", 20)


def test_patches_are_drawn_evenly():
    clip = np.repeat([0, 1, 2, 3], [100, 3, 1, 50])
    rows = draw_rows(clip, 10, seed=1)
    assert np.bincount(clip[rows]).tolist() == [3, 3, 1, 3]
    assert (np.diff(rows) > 0).all()
    assert draw_rows(clip, 10, seed=2).tolist() != rows.tolist()
    assert draw_rows(clip, 1000, seed=1).tolist() == list(range(154))
    assert len(draw_rows(clip, 3, seed=1)) == len(set(clip[draw_rows(clip, 3, seed=1)])) == 3


def test_a_rare_class_is_not_lost():
    labels = np.zeros(1000, int)
    labels[7] = 1
    clip = np.repeat(np.arange(1000), 4)
    assert labels[clip[draw_rows(clip, 50, 0, labels)]].sum() == 4


def test_a_class_that_only_validation_has(forgetful, parts):
    labels = LABELS.copy()
    labels[PARTS["validation"][:2]] = 2
    found = depth_profile(forgetful, parts["train"], parts["validation"], labels)
    assert found.groups[0].scores["accuracy"] == 0.9
    assert found.groups[0].scores["balanced_accuracy"] == pytest.approx(2 / 3)


def test_the_peak_is_the_smallest_depth_within_one_standard_error():
    assert error_of_share(0.8, 100) == pytest.approx(0.04, abs=1e-3)
    assert find_peak([0.5, 0.74, 0.8, 0.79], 0.04) == 2
    assert find_peak([0.5, 0.77, 0.8, 0.79], 0.04) == 1
    # A perfect score on ten clips is not certain: nine of ten are as good.
    assert find_peak([0.8, 0.95, 1.0], error_of_share(1.0, 10)) == 1
    assert find_peak([0.8, 0.95, 1.0], error_of_share(1.0, 1000)) == 2


def depths(*scores):
    return [Depth(f"block{i}", {"balanced_accuracy": s}) for i, s in enumerate(scores, 1)]


def concluded(*scores, clips, chance=0.25):
    error = error_of_share(max(scores), clips)
    return conclude(depths(*scores), "balanced_accuracy", clips, chance, error)


def test_the_peak_in_words():
    found = concluded(0.5, 0.8, 0.6, 0.4, clips=200)
    assert found.peak == "block2"
    assert found.summary.endswith(
        "(balanced accuracy 0.80); at the last group, block4, it is 0.40."
    )
    found = concluded(0.3, 0.5, 0.9, clips=200)
    assert found.peak == "block3"
    assert "only the last, block3, tells the classes apart best" in found.summary
    found = concluded(0.25, 0.30, 0.28, clips=40)
    assert found.peak is None
    assert "balanced accuracy 0.30 at best, chance 0.25" in found.summary


@pytest.mark.parametrize(
    ("train", "validation", "reason"),
    [
        ([0, 1, 2, 3], [], "10 validation clips or more; there are none"),
        ([0, 1, 2, 3], [30], "10 validation clips or more; there is 1"),
        ([0, 1, 2, 3], [30, 31, 31, 31], "10 validation clips or more; there are 2"),
        ([0, 2, 4], range(30, 50), "two classes in the training"),
        ([0, 1, 2], range(30, 60, 2), "two classes in the training"),
        ([0, 1, 2], range(30, 50), None),
    ],
)
def test_clips_that_allow_no_profile(train, validation, reason):
    found = why_no_profile(LABELS, np.array(train, int), np.array(validation, int))
    assert found is None if reason is None else reason in found


def test_it_refuses_what_it_cannot_score(forgetful, parts):
    few = Patches(PARTS["validation"][:4])
    with pytest.raises(DataError, match="there are 4"):
        depth_profile(forgetful, parts["train"], few, LABELS)
    network = toy.build_toy()
    network.get_layer("block2_bn").beta.assign(np.full(16, np.inf))
    with pytest.raises(DataError, match="not finite"):
        depth_profile(network, parts["train"], parts["validation"], LABELS)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("depths")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder, pictures=True)
        toy.write_sounds(folder / "data", clips=10)
        yield folder


def train(sounds, out, schedule="probe", **changes):
    given = {"validation": 0.4, "epochs": 1, "backbone": "toy", **changes}
    return train_classifier(TrainOptions(sounds / "data", schedule, out, **given)).metrics


def test_a_run_keeps_its_profile(sounds, tmp_path):
    metrics = train(sounds, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["depths"]
    assert found == metrics["depths"]
    assert [group["group"] for group in found["groups"]] == ["block1", "block2"]
    assert found["clips"] == metrics["validation"]["clips"] == 12
    assert imread(tmp_path / "run" / "depths.png").ndim == 3


def test_a_run_that_reads_the_embedding_alone_has_none(sounds, tmp_path):
    assert "depths" not in train(sounds, tmp_path / "run", "head_only", taps="none")
    assert not (tmp_path / "run" / "depths.png").exists()
