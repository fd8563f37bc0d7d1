"""Scores recordings on a Ray cluster as `unfreeze.detection.scan.scan_files` does on this machine.

A unit is a group of neighbours, whose last patches share batches: its scores depend on its own
recordings alone, so it matters neither which worker scores it nor how many there are.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unfreeze.audio.cluster import Cluster, Lost, run_units
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.sound_file import SoundError
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backend import standard_error_held
from unfreeze.detection.scan import Ended, Item, neighbours, scan_files
from unfreeze.errors import DataError, show
from unfreeze.pipeline.inference import file_scores, fused

#: Opens a model's file: what turns patches into scores, and how waveforms become patches.
Open = Callable[[Path], tuple[Any, FrontEnd]]


@dataclass(frozen=True, eq=False)
class ClusterScan:
    """A model on a cluster; call it like `scan_files`, without the model.

    Attributes:
        cluster: where.
        model: the bytes of a `.keras` file.
        open: "module:function", an `Open`.
    """

    cluster: Cluster
    model: bytes
    open: str

    def __call__(
        self, paths: Sequence[Path], hop: int, groups: Sequence[range] | None = None
    ) -> Iterator[tuple[int, Item]]:
        """Score the patches of many recordings.

        Args:
            paths: the recordings.
            hop: as for `scan_files`; so are the groups.
            groups: the numbers of recordings whose last patches share batches.

        Yields:
            As `scan_files`; a recording's items come together, when its group is finished.
        """
        together = neighbours(paths) if groups is None else groups
        units = [[str(paths[number].absolute()) for number in group] for group in together]
        settings = {"model": self.model, "open": self.open, "hop": hop}
        make = f"{__name__}:make_scanner"
        for unit, items in run_units(self.cluster, make, settings, units):
            numbers = together[unit]
            if isinstance(items, Lost):
                for number in numbers:
                    yield number, Ended(lost(paths[number], items))
            else:
                for place, item in items:
                    yield numbers[place], _named(item, paths[numbers[place]])

    def clip_scores(self, paths: Sequence[Path]) -> Iterator[tuple[int, Any]]:
        """Mean class probabilities of whole recordings, as `unfreeze.pipeline.inference`.

        Args:
            paths: the recordings.

        Yields:
            The number of each recording, with (classes,) float32.

        Raises:
            DataError: a recording cannot be read.
        """
        together = neighbours(paths)
        units = [[str(paths[number].absolute()) for number in group] for group in together]
        settings = {"model": self.model, "open": self.open}
        make = f"{__name__}:make_clip_scorer"
        for unit, scores in run_units(self.cluster, make, settings, units):
            numbers = together[unit]
            if isinstance(scores, Lost):
                raise lost(paths[numbers[0]], scores)
            for number, one in zip(numbers, scores, strict=True):
                if isinstance(one, DataError):
                    raise one
                yield number, one


def scan_on(
    cluster: Cluster | None, save: Callable[[Path], object], opens: Open
) -> ClusterScan | None:
    """Scan with a model on a cluster.

    Args:
        cluster: where; None scans on this machine, without it.
        save: writes the model to a `.keras` file; called now.
        opens: opens the file on the cluster; a function of a module.
    """
    if cluster is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        # Keras imports TensorFlow to save on PyTorch, and that writes about missing drivers.
        with standard_error_held():
            save(file := Path(folder) / "model.keras")
        return ClusterScan(cluster, file.read_bytes(), f"{opens.__module__}:{opens.__name__}")


def _named(item: Item, path: Path) -> Item:
    """The same; an error names the file as it was given, not by its absolute path."""
    if isinstance(item, Ended) and isinstance(item.error, SoundError):
        return Ended(SoundError(path, item.error.rule, item.error.cause))
    return item


def lost(path: Path, why: Lost) -> DataError:
    """The error of a recording whose unit could not be done."""
    return DataError(f"{show(path)} could not be read on the Ray cluster: {why.cause}")


def make_scanner(settings: dict[str, Any]) -> Callable[[list[str]], list[tuple[int, Item]]]:
    """What a worker of the cluster does with a unit: scan it.

    Args:
        settings: `model`, `open` and `hop` of a `ClusterScan`.
    """
    model, front_end = _opened(settings)
    decoders = Decoders()

    def scan(unit: list[str]) -> list[tuple[int, Item]]:
        paths = [Path(path) for path in unit]
        groups = [range(len(paths))]
        found = scan_files(
            *(model, front_end, paths, settings["hop"]),
            workers=1,
            decoders=decoders,
            groups=groups,
        )
        return list(found)

    return scan


def make_clip_scorer(settings: dict[str, Any]) -> Callable[[list[str]], list[Any]]:
    """What a worker of the cluster does with a unit: score whole recordings.

    Args:
        settings: `model` and `open` of a `ClusterScan`.
    """
    model, front_end = _opened(settings)
    decoders = Decoders()

    def score(path: str) -> Any:
        try:
            return file_scores(model, front_end, Path(path), decoders)
        except DataError as error:
            return error

    return lambda unit: [score(path) for path in unit]


def open_detector(file: Path) -> tuple[Any, FrontEnd]:
    """Patches to probabilities, from the file of a classifier, for long recordings."""
    model, front_end = open_classifier(file)
    return fused(model), front_end


def open_classifier(file: Path) -> tuple[Any, FrontEnd]:
    """Patches to probabilities, from the file of a classifier."""
    # Keras, which the light form does without.
    from unfreeze.audio.clip_model import parts_of
    from unfreeze.pipeline.saved_model import load_clip_model

    model, front_end, _ = parts_of(load_clip_model(file))
    return model, front_end


def _opened(settings: dict[str, Any]) -> tuple[Any, FrontEnd]:
    module, _, name = settings["open"].partition(":")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        file.write_bytes(settings["model"])
        found: tuple[Any, FrontEnd] = getattr(import_module(module), name)(file)
        return found
