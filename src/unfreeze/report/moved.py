"""What each stage moved, layer by layer, as a picture.

One strip a stage; the layers stand in network order on the same places in each.
The heights are logarithmic, but zero is kept apart: a dot on the base line means
that a layer moved by exactly nothing, however small a bar may be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from unfreeze.errors import DataError
from unfreeze.report.names import power_of_ten, short, shortest_unique
from unfreeze.report.style import BLUE, GREY, PALE, VERMILLION, PathLike, page

if TYPE_CHECKING:
    from unfreeze.core.audit import Audit

Layer = Mapping[str, Any]

# Room between the base line, where exact zeros are, and the lowest power of ten.
ZERO_ROOM = 0.6
MOST_DECADES = 8
LONGEST_NAME = 30
WIDEST = 30.0

STILL: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "color": GREY}
STUCK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "x",
    "markersize": 6,
    "markeredgewidth": 1.8,
    "color": VERMILLION,
}


def plot_moved(audit: "Sequence[Mapping[str, Any]] | Audit", path: PathLike) -> None:
    """Draw the relative movement of every layer in every stage.

    Args:
        audit: `result.audit`, or a mapping a stage: `stage` (its name) and `layers`, in network
            order, each with `layer` (path), `weights` (count), `trainable` (was
            it meant to move) and `moved` (relative L2 movement, or None). Layers
            without weights are left out.
        path: the picture to write.

    Raises:
        DataError: if no stage has a layer with weights.
    """
    stages = [
        (str(stage["stage"]), {str(x["layer"]): x for x in stage["layers"] if x["weights"]})
        for stage in (audit if isinstance(audit, Sequence) else audit.as_list())
    ]
    # A dict keeps the order of first appearance.
    names = list({name: None for _, layers in stages for name in layers})
    if not names:
        raise DataError("nothing to plot: the audit has no layer with weights")
    sizes = [size for _, layers in stages for x in layers.values() if (size := _size(x)) > 0]
    scale = _Scale.over([size for size in sizes if math.isfinite(size)])

    width = float(np.clip(1.6 + 0.16 * len(names), 6.0, WIDEST))
    with page(path, width, 1.9 + 1.35 * len(stages)) as figure:
        strips = np.atleast_1d(figure.subplots(len(stages), 1, sharex=True, sharey=True)).tolist()
        for axes, (stage, layers) in zip(strips, stages, strict=True):
            _draw_stage(axes, stage, [layers.get(name) for name in names], scale)
        every = math.ceil(len(names) / (7.0 * WIDEST))
        places = range(0, len(names), every)
        texts = [short(text, LONGEST_NAME) for text in shortest_unique(names)]
        strips[-1].set_xticks(places, [texts[i] for i in places], rotation=90, fontsize=7.0)
        strips[-1].set_xlim(-0.8, len(names) - 0.2)
        figure.supylabel("relative movement (L2)", fontsize=9.0)
        _legend(figure, stages)


@dataclass(frozen=True)
class _Scale:
    """Heights for sizes: 0 at the base line, then one unit a power of ten."""

    low: int
    high: int

    @classmethod
    def over(cls, sizes: Sequence[float]) -> "_Scale":
        high = math.ceil(math.log10(max(sizes))) if sizes else 0
        low = math.floor(math.log10(min(sizes))) if sizes else -3
        return cls(max(min(low, high - 1), high - MOST_DECADES), high)

    @property
    def top(self) -> float:
        return ZERO_ROOM + self.high - self.low

    def height(self, size: float) -> float:
        if not math.isfinite(size):
            return self.top
        # Smaller than the scale is still not zero: a stub of a bar remains.
        return ZERO_ROOM + max(math.log10(size) - self.low, 0.0) if size > 0 else 0.0


def _size(layer: Layer) -> float:
    # No number at all means that the movement could not be told from infinity.
    moved = layer["moved"]
    return math.inf if moved is None or math.isnan(moved) else float(moved)


def _is_wrong(layer: Layer) -> bool:
    size = _size(layer)
    return not math.isfinite(size) or (size > 0) != bool(layer["trainable"])


def _draw_stage(axes: Axes, stage: str, layers: Sequence[Layer | None], scale: _Scale) -> None:
    present = [(place, layer) for place, layer in enumerate(layers) if layer is not None]
    meant = [place for place, layer in present if layer["trainable"]]
    axes.bar(meant, scale.top, width=1.0, color=PALE, zorder=0)
    moved = [(place, layer) for place, layer in present if _size(layer) > 0]
    axes.bar(
        [place for place, _ in moved],
        [scale.height(_size(layer)) for _, layer in moved],
        width=0.72,
        color=[VERMILLION if _is_wrong(layer) else BLUE for _, layer in moved],
    )
    still = [(place, layer) for place, layer in present if _size(layer) == 0]
    for wrong, style in ((False, STILL), (True, STUCK)):
        places = [place for place, layer in still if _is_wrong(layer) == wrong]
        if places:  # an empty line that is not clipped upsets the layout
            axes.plot(places, [0.0] * len(places), clip_on=False, zorder=3, **style)

    step = max(1, math.ceil((scale.high - scale.low) / 4))
    powers = range(scale.high, scale.low - 1, -step)
    axes.set_yticks(
        [0.0, *(ZERO_ROOM + power - scale.low for power in powers)],
        ["0", *map(power_of_ten, powers)],
    )
    axes.set_ylim(0.0, scale.top)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    axes.set_title(f"{short(stage, 30)}: {len(meant)} of {len(present)} layers meant to move")
    count = sum(_is_wrong(layer) for _, layer in present)
    if count:
        axes.set_title(f"{count} not as meant", loc="right", color=VERMILLION, fontweight="bold")


def _legend(figure: Figure, stages: Sequence[tuple[str, Mapping[str, Layer]]]) -> None:
    layers = [layer for _, by_name in stages for layer in by_name.values()]
    handles: list[Patch | Line2D] = [
        Patch(facecolor=PALE, label="meant to move"),
        Patch(facecolor=BLUE, label="moved, as meant"),
        Line2D([], [], **STILL, label="exactly 0"),
    ]
    if any(_is_wrong(layer) for layer in layers):
        handles.append(Patch(facecolor=VERMILLION, label="not as meant (cross: exactly 0)"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
