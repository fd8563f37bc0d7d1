"""The frozen network, patches to embeddings, against engines made for that."""

from benchmarks.plan import Comparison, Options, Ratio, Side

OURS, OURS_BF16 = "ours", "ours, bfloat16"
KERAS, ORT = "model.predict", "ONNX Runtime, float32"
OV32, OV16 = "OpenVINO, float32", "OpenVINO, bfloat16"
_SIDES = "benchmarks.sides."
TOLERANCE = 1e-4


def declare(options: Options) -> Comparison:
    """Batches of 128 with the real weights; each side's result is checked first."""
    folder = str(options.cache)
    args = {"folder": folder, "times": 4 if options.quick else 12}
    return Comparison(
        name="forward",
        title="Frozen YAMNet, patches to embeddings, batches of 128",
        sides=(
            Side(OURS, _SIDES + "forward_ours", {**args, "bfloat16": False}),
            Side(OURS_BF16, _SIDES + "forward_ours", {**args, "bfloat16": True}),
            Side(KERAS, _SIDES + "forward_keras", args),
            Side(ORT, _SIDES + "forward_onnxruntime", args, "engines"),
            Side(OV32, _SIDES + "forward_openvino", {**args, "precision": "f32"}, "engines"),
            Side(OV16, _SIDES + "forward_openvino", {**args, "precision": "bf16"}, "engines"),
        ),
        ratios=(
            Ratio("frozen forward: ours / ONNX Runtime float32", OURS, ORT, target=1.0),
            Ratio(
                "frozen forward: largest error of ours / largest embedding",
                OURS,
                None,
                "error",
                target=TOLERANCE,
                at_most=True,
            ),
            Ratio(
                "frozen forward, bfloat16: ours / ONNX Runtime float32", OURS_BF16, ORT, target=1.7
            ),
            Ratio("frozen forward: ours / model.predict", OURS, KERAS),
            Ratio("frozen forward: ours / OpenVINO float32", OURS, OV32),
            Ratio("frozen forward: OpenVINO bfloat16 / ONNX Runtime float32", OV16, ORT),
        ),
        rounds=3 if options.quick else 9,
        keys=("rate", "error"),
        settings={"batch": 128, "batches a round": args["times"]},
        before=(Side("export to ONNX", _SIDES + "export_onnx", {"out": folder}, "export"),),
        notes=(
            "error: the largest difference to `model.predict`, as a part of the largest embedding.",
        ),
    )
