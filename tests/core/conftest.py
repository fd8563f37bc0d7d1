"""Settings for the tests of the engine."""

import os

import keras
import pytest
from hypothesis import HealthCheck, settings

from unfreeze.core import stage_fit

# Compiling for a backend takes seconds and varies with the machine's load.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("normal", max_examples=10, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=300, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))


@pytest.fixture(scope="session", autouse=True)
def _all_digits():
    """A GPU shortens float32 to 10 bits within convolutions unless told otherwise."""
    if keras.backend.backend() == "torch":
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    elif keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() == "gpu":
            jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def _one_step_a_call(request, monkeypatch):
    """The same to the bit as several steps a call, and traced in two thirds of the time."""
    if "several_steps" not in request.keywords:
        monkeypatch.setattr(stage_fit, "_STEPS", 1)


@pytest.fixture(autouse=True)
def _clean_keras():
    """Names count from 1 again, the dtype policy is the default one, and chance decides nothing."""
    # Collecting garbage took 10 seconds a test once thousands of graphs had been traced.
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
