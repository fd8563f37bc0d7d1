"""Training the whole network: patches a second, and how near the machine's limit."""

from benchmarks.plan import Comparison, Options, Ratio, Side, without

KERAS, NCHW, NHWC = "plain Keras", "plain PyTorch, NCHW", "plain PyTorch, channels last"
LIGHTNING, OURS, MATMUL = "Lightning, finetuning-scheduler", "ours", "matrix product"
BATCH = 128
_SIDES = "benchmarks.sides."


def declare(options: Options) -> Comparison:
    """BatchNorm in training mode for all but ours, whose statistics are fixed."""
    patches = BATCH * (2 if options.quick else 12)
    args = {"patches": patches, "batch": BATCH}
    sides = (
        Side(KERAS, _SIDES + "train_keras", args),
        Side(NCHW, _SIDES + "train_torch", {**args, "channels_last": False}, "lightning"),
        Side(NHWC, _SIDES + "train_torch", {**args, "channels_last": True}, "lightning"),
        Side(LIGHTNING, _SIDES + "train_lightning", args, "lightning"),
        Side(OURS, _SIDES + "train_ours", {**args, "train": "all"}),
        Side(MATMUL, _SIDES + "matmul", {"times": 5}),
    )
    comparison = Comparison(
        name="full_stage",
        title="Training the whole network, batches of 128",
        sides=sides,
        ratios=(
            Ratio("full stage: ours / plain Keras", OURS, KERAS, target=2.5),
            Ratio("full stage: ours / plain PyTorch, channels last", OURS, NHWC, target=1.4),
            Ratio("full stage: ours / plain PyTorch, NCHW", OURS, NCHW),
            Ratio("full stage: ours / finetuning-scheduler", OURS, LIGHTNING, target=2.0),
            Ratio(
                "full stage: achieved multiply-adds / float32 matrix product",
                OURS,
                MATMUL,
                "gmacs",
                target=0.75,
            ),
        ),
        rounds=2 if options.quick else 5,
        keys=("rate", "gmacs", "peak_mb"),
        settings=args,
        notes=(
            "gmacs: 10^9 multiply-adds a second; of ours those that the network needs (forward, "
            "and the gradients of weights and inputs), of the matrix product those of the better "
            "of numpy and TensorFlow at 2048 cubed.",
            "PyTorch's threads wait for each other: other work on the machine slows it far more "
            "than TensorFlow, so its ratios hold on a quiet machine only.",
        ),
    )
    return without(comparison, NCHW) if options.quick else comparison
