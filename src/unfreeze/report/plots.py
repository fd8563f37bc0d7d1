"""The three pictures of a run: learning curves, confusion, and what moved."""

from unfreeze.report.confusion import plot_confusion
from unfreeze.report.curves import plot_curves
from unfreeze.report.moved import plot_moved

__all__ = ["plot_confusion", "plot_curves", "plot_moved"]
