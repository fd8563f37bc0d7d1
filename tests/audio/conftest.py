"""Small recordings, written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def write_sound(tmp_path: Path) -> Callable[..., Path]:
    """Write a noisy tone below `tmp_path`; each call another sound."""
    rng = np.random.default_rng(0)

    def write(
        name: str, seconds: float = 0.3, rate: int = 16_000, channels: int = 1, **how: str
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 900) * time)
        noise = rng.normal(scale=0.02, size=(len(time), channels))
        soundfile.write(path, tone[:, np.newaxis] + noise, rate, **how)
        return path

    return write
