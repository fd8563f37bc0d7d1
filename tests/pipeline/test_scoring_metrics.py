"""Each score owns its direction."""

import pytest

from unfreeze.errors import DataError
from unfreeze.pipeline.scoring import METRICS, Metric


def test_metric_owns_its_direction():
    assert METRICS["accuracy"].best([0.5, 0.9, 0.9, None]) == 1
    assert METRICS["loss"].best([None, 0.5, float("nan"), 0.2, 0.2]) == 3
    assert [m.higher_is_better for m in METRICS.values()] == [True, True, True, False]
    own = Metric("errors", False, lambda tally: tally.support.sum(-1) - tally.hits.sum(-1))
    assert own.best([3, 1, 2]) == 1
    with pytest.raises(DataError, match="no value of loss"):
        METRICS["loss"].best([None, float("nan")])
