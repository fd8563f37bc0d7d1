"""`unfreeze.plan`: what each stage of a schedule would train, before anything does."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from unfreeze.core.boundary import StagePlan, check_stages, plan_stage
from unfreeze.core.graph import check_is_model, flatten
from unfreeze.core.html_tables import html_table
from unfreeze.core.presets import as_schedule
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.report.tables import plan_table

if TYPE_CHECKING:
    import keras

_WIDTH = 100


@dataclass(frozen=True, repr=False)
class Preview:
    """The plan of a schedule on a model; prints as a table, also in a notebook.

    Attributes:
        schedule: its name.
        model: the model's name.
        stages: what each stage trains, what lies frozen before it, and what is cached.
    """

    schedule: str
    model: str
    stages: tuple[StagePlan, ...]

    def __str__(self) -> str:
        text = StringIO()
        # In a notebook, a console would otherwise show its text there and then.
        console = Console(file=text, width=_WIDTH, color_system=None, force_jupyter=False)
        console.print(plan_table(self.stages, self._title()))
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        return "\n".join((*lines, "", *self._notes()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        headers = ("stage", "epochs, at most", "trains", "weights", "frozen before it", "cached")
        rows = [
            (
                plan.stage,
                plan.epochs,
                ", ".join(_span(s.first, s.last) for s in plan.spans),
                plan.weights_trained,
                ", ".join(plan.boundary),
                _cached(plan),
            )
            for plan in self.stages
        ]
        return html_table(headers, rows, self._title(), self._notes())

    def _title(self) -> str:
        return f"{self.schedule} on {self.model}"

    def _notes(self) -> list[str]:
        whole = self.stages[0]
        work = [
            f"{plan.stage} {_percent(plan.step_work)}"
            for plan in self.stages
            if plan.epochs and not plan.solve and plan.step_work is not None
        ]
        notes = [f"{whole.weights_total:,} weights in {whole.layers_total} layers in all."]
        if work:
            notes.append(f"Work of a step, where one that trains all is 100 %: {', '.join(work)}.")
        return notes


def plan(model: "keras.Model", schedule: Schedule | Stage | Sequence[Stage] | str) -> Preview:
    """Work out what each stage of a schedule would train; nothing is trained or changed.

    Args:
        model: a built functional or Sequential model.
        schedule: a `Schedule`, a `Stage` or a list of them, or the name of a preset.

    Returns:
        The plan: for each stage its layers and weights, the freeze boundary, the size of the
        cache, and what a step costs. The data may still prevent a cache.

    Raises:
        ScheduleError: the schedule does not fit the model, as `unfreeze.fit` would say.

    Examples:
        >>> preview = unfreeze.plan(model, "two_stage")  # print(preview) shows a table
        >>> [stage.weights_trained for stage in preview.stages]
        [27, 5693]
    """
    check_is_model(model, "plan")
    checked = as_schedule(schedule)
    graph = flatten(model)
    stages = tuple(plan_stage(graph, selection) for selection in check_stages(graph, checked))
    return Preview(checked.name, model.name, stages)


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} … {last}"


def _cached(plan: StagePlan) -> str:
    if not plan.cached:
        return "no"
    return "yes" if plan.cache_bytes is None else f"{plan.cache_bytes / 1000:,.1f} KB per sample"
