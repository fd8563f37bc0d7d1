"""The head stage of the classic recipe, from the start of the process to its end."""

from benchmarks.plan import Comparison, Options, Ratio, Side, without

PLAIN, OURS, PREDICT = "plain Keras", "ours", "head on model.predict"
EPOCHS, TRAIN = 100, 2_000
QUICK_EPOCHS, QUICK_TRAIN = 5, 512


def declare(options: Options) -> Comparison:
    """All epochs, no early end, an empty cache."""
    train = options.patches or (QUICK_TRAIN if options.quick else TRAIN)
    epochs = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    args = {"train": train, "validation": train // 4, "epochs": epochs}
    notes = ["Plain Keras pays for the base in every epoch, so the ratio grows with the epochs."]
    if epochs < EPOCHS:
        notes.append(f"{epochs} epochs instead of {EPOCHS}: the target is not for this form.")
    comparison = Comparison(
        name="head_stage",
        title="Head stage of the classic recipe, whole process",
        sides=(
            Side(PLAIN, "benchmarks.sides.head_keras", args, fresh=True),
            Side(PREDICT, "benchmarks.sides.head_predict", args, fresh=True),
            Side(OURS, "benchmarks.sides.head_ours", args, fresh=True),
        ),
        ratios=(
            Ratio("head stage: plain Keras / ours", PLAIN, OURS, "seconds", target=60),
            Ratio("head stage: head on model.predict / ours", PREDICT, OURS, "seconds"),
        ),
        rounds=1,
        keys=("seconds", "peak_mb"),
        settings={**args, "batch": 128},
        notes=tuple(notes),
    )
    return without(comparison, PREDICT) if options.quick else comparison
