"""The same seed gives the same run, to the bit, in two processes on each backend."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import hashlib, json, sys
    import keras
    if "ops" in sys.argv:
        import tensorflow
        tensorflow.config.experimental.enable_op_determinism()
    from small_runs import make, run
    from unfreeze.core.schedule import Schedule, Stage

    # Dropout and augmentation draw, BatchNorm counts, and both stages train.
    schedule = Schedule((
        Stage("head", "head", epochs=2, learning_rate=0.05),
        Stage("all", "all", epochs=2, learning_rate=0.01, batch_norm="train"),
    ))

    def once(seed):
        model = make(augment=True)
        result = run(model, schedule, seed=seed)
        bits = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
        return bits, rows

    found = [once(int(seed)) for seed in sys.argv[1].split(",")]
    print(json.dumps({"backend": keras.backend.backend(), "found": found}))
"""

pytestmark = pytest.mark.slow

BACKENDS = [
    ("tensorflow", ""),
    ("tensorflow", "ops"),
    ("torch", ""),
    ("jax", ""),
]


@pytest.mark.parametrize(("backend", "option"), BACKENDS)
def test_two_processes_end_with_the_same_bits(backend, option, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KERAS_BACKEND": backend,
    }
    environment.pop("PYTHONHASHSEED", None)  # each process has its own
    processes = [
        subprocess.Popen(
            [sys.executable, "program.py", seeds, option],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for seeds in ("1", "2,1")
    ]
    one, two = (json.loads(process.communicate(timeout=500)[0]) for process in processes)
    assert one["backend"] == two["backend"] == backend
    # Whatever the process has drawn before; and the seed counts.
    (first,), (other, again) = one["found"], two["found"]
    assert first == again
    assert other[0] != first[0]
