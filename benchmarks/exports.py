"""Every export of a run against its Keras model: size, differences, accuracy and speed.

    python -m benchmarks.exports RUN DATA [--rounds 12] [--out FILE.json]

RUN was trained on DATA (`unfreeze train DATA --out RUN`). Each format and
quantization is exported, which also runs its own check, and then scored on all
clips of the run's test part, each from beginning to end. What cannot be made,
or fails its check, is a row with the reason. Speed is one sound of noise at a
time, on all cores, all sides by turns in this process.
"""

import argparse
import csv
import importlib
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

from benchmarks.machine import busy, machine
from benchmarks.processes import without_places
from unfreeze import ExportError, SoundClassifier, export_model
from unfreeze.audio.decode import decode
from unfreeze.export import check, program
from unfreeze.export.check import fitted
from unfreeze.export.formats import FORMATS
from unfreeze.files import write_json
from unfreeze.pipeline import run_folder

SECONDS = 3
FREE = "native precision"


def main():
    """Export, score, measure, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    classifier = SoundClassifier.load(chosen.run)
    clips = labelled_clips(chosen.run, chosen.data, classifier)
    report = {"machine": machine(), "clips": len(clips), "rounds": chosen.rounds}
    # The samples of a fixed input, or None, to the file's sound in a speed test.
    patch, rate = classifier.front_end.min_samples, classifier.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        runners, made = {}, {}
        for length in (None, patch):
            runners[length], made[length] = exported(classifier, Path(folder), length)
        report["exports"] = scores(classifier, clips, runners[None], made[None])
        report["fixed"] = made[patch]
        print(scores_table(report["exports"]), flush=True)
        report["busy_before"], report["speed"] = busy(), {}
        keras = program.with_outputs(classifier.model, False).predict_on_batch
        for length, samples in ((None, SECONDS * rate), (patch, patch)):
            # Run by TensorFlow here, whose speed says nothing of TensorFlow.js.
            ran = {name: run for name, run in runners[length].items() if "tfjs" not in name}
            sides = {"keras": keras, **ran}
            report["speed"][f"{samples / rate:g} s"] = by_turns(
                {
                    name: lambda run=run, samples=samples: check.speed(run, samples, rate)
                    for name, run in sides.items()
                },
                chosen.rounds,
            )
        report["busy_after"] = busy()
    print(speed_table(report["speed"]))
    print(f"\ncores in use by all, before and after: {report['busy_before']:.0%}, "
          f"{report['busy_after']:.0%}")  # fmt: skip
    if chosen.out:
        write_json(chosen.out, report)


def labelled_clips(run, data, classifier):
    """(waveform, number of the class) of all clips of the run's test part."""
    with (run / run_folder.SPLITS).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [
        (decode(data / row["path"], classifier.sample_rate), classifier.labels.index(row["label"]))
        for row in rows
    ]


def exported(classifier, folder, length):
    """Make all exports of one length.

    Returns:
        What runs each, and what is told of each: size and check, or why there is none.
    """
    runners, made = {}, {}
    for form in FORMATS.values():
        for quantize in (None, *form.quantize):
            name = f"{form.name} {quantize}" if quantize else form.name
            path = folder / f"{form.name}-{quantize}-{length}{form.ending}"
            try:
                done = export_model(classifier, form.name, path, quantize=quantize, length=length)
            except ExportError as error:
                made[name] = {"failed": without_places(str(error))}
                print(f"{name}, length {length or 'any'}: {made[name]['failed']}", flush=True)
                continue
            made[name] = {key: done.details[key] for key in ("bytes", "check")}
            # That speed was measured once, without turns.
            del made[name]["check"]["speed"]
            runners[name] = importlib.import_module(f"unfreeze.export.to_{form.name}").load(path)
            if form.name == "openvino" and quantize is None:
                runners[f"{name}, {FREE}"] = native_openvino(path)
                made[f"{name}, {FREE}"] = {"bytes": done.details["bytes"]}
    return runners, made


def native_openvino(path):
    """OpenVINO as it is without our hint: in bfloat16 where the processor can."""
    import openvino

    model = openvino.Core().compile_model(path, "CPU")
    # A copy: the next call writes into the same memory.
    return lambda waveform: {"probabilities": np.array(model(waveform)["probabilities"])}


def scores(classifier, clips, runners, made):
    """A row for Keras and each export: what `compared` gives, and what is told of it."""
    model = program.with_outputs(classifier.model, False)
    sounds, truth = zip(*((fitted(sound, None), label) for sound, label in clips), strict=True)
    wanted = np.concatenate([np.asarray(model(sound, training=False)) for sound in sounds])
    rows = {"keras": compared(wanted, wanted, truth)}
    for name, told in made.items():
        if name in runners:
            given = [np.asarray(runners[name](sound)["probabilities"]) for sound in sounds]
            told = {**told, **compared(wanted, np.concatenate(given), truth)}
        rows[name] = told
    return rows


def compared(wanted, given, truth):
    """Differences of probabilities (clips, classes) from the model's, and the accuracy."""
    ranked, same = np.sort(wanted, axis=1), given.argmax(axis=1) == wanted.argmax(axis=1)
    decided = ranked[:, -1] - ranked[:, -2] >= check.DECIDED
    return {
        "largest_difference": float(np.abs(given - wanted).max()),
        "same_top_class": float(same.mean()),
        "same_top_class_of_decided": float(same[decided].mean()) if decided.any() else None,
        "decided": int(decided.sum()),
        "accuracy": float((given.argmax(axis=1) == np.asarray(truth)).mean()),
    }


def by_turns(sides, rounds):
    """Measure each side once in each round, every other round from the last one on.

    Args:
        sides: functions by name, each gives `milliseconds` and `times_real_time`.
        rounds: how often.

    Returns:
        For each side the median and best round in `milliseconds`, and the
        median of `times_real_time`.
    """
    found = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name]())
    return {
        name: {
            "milliseconds": float(np.median([x["milliseconds"] for x in measured])),
            "best_milliseconds": min(x["milliseconds"] for x in measured),
            "times_real_time": float(np.median([x["times_real_time"] for x in measured])),
        }
        for name, measured in found.items()
    }


def scores_table(rows):
    """The rows of `scores` in Markdown; failed exports have the reason instead."""
    lines = [
        "| | size | difference | on silence, tone, noise | same top class | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} | | | | |")
            continue
        hard = row.get("check", {}).get("hard_sounds", {}).get("largest_difference")
        cells = [
            f"{row['bytes'] / 1e6:.1f} MB" if "bytes" in row else "",
            f"{row['largest_difference']:.2g}",
            "" if hard is None else f"{hard:.2g}",
            f"{row['same_top_class']:.0%}",
            f"{row['accuracy']:.0%}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(speeds):
    """Median (best round) in ms and times real time in Markdown; a column for each length."""
    names = dict.fromkeys(name for rows in speeds.values() for name in rows)
    heads = " | ".join(f"{length}, ms | times real time" for length in speeds)
    lines = [f"| | {heads} |", "|---" * (1 + 2 * len(speeds)) + "|"]
    for name in names:
        cells = []
        for row in (rows.get(name) for rows in speeds.values()):
            if row is None:
                cells += ["", ""]
                continue
            cells.append(f"{row['milliseconds']:.1f} (best {row['best_milliseconds']:.1f})")
            cells.append(f"{row['times_real_time']:.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
