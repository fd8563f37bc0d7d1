"""What every format's `load` returns."""

from collections.abc import Callable

import numpy as np

# Waveforms (batch, samples) float32 to the outputs by name, each (batch, numbers).
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]
