"""All settings of a training run, each declared once.

A field of `TrainOptions` carries its default, its range and its help. The options of
every command, `config.yaml`, the command that repeats a run, the settings inherited
with `--add-to`, and the signature of `SoundClassifier.train` come from it. To add an
option, add a field, the code that uses it, and a test.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

import attrs
from attrs.converters import optional

from unfreeze.audio.cluster import ENGINES, LOCAL, Cluster, chosen_cluster
from unfreeze.core.presets import DEFAULT
from unfreeze.core.schedule import Schedule
from unfreeze.errors import UnfreezeError, did_you_mean
from unfreeze.pipeline.wish import Wish

# Patches in one training step, unless the schedule or the user says otherwise.
DEFAULT_BATCH = 32
# Where the network is read: at every depth.
DEFAULT_TAPS = "auto"
# Its embedding alone, by the head of the classic recipe.
NO_TAPS = "none"
DEFAULT_AUGMENT, NO_AUGMENT = "strong", "none"
# Tables of annotated recordings name every sound, so that the rest is background.
FULLY = "fully"
# Each class counts the same, or each clip does.
BALANCED, UNWEIGHTED = "balanced", "none"
AUGMENTS = (NO_AUGMENT, "light", DEFAULT_AUGMENT)
# Names of the new layers, as in the classic recipe.
HEAD = "transfer_*"

P = ParamSpec("P")
T = TypeVar("T")
Made = TypeVar("Made")
R = TypeVar("R")


@dataclass(frozen=True)
class Option:
    """What the rest of the package needs to know about a training option.

    Attributes:
        help: one line for `--help`.
        least: the smallest value allowed.
        most: the largest value allowed.
        above: a value that it must be greater than.
        inherited: whether `add_to` takes it from the earlier run if it is not given.
        describes_run: whether it defines the run: kept in `config.yaml` and in the
            command that repeats the run, and compared by `--resume`.
        shared: whether `unfreeze compare` and `unfreeze tune` take it, too.
        flag: a shorter name on the command line.
        choices: the only values allowed.
        or_file: whether a file may be named instead of a choice.
        hidden: whether `--help` leaves it out.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    inherited: bool = False
    describes_run: bool = True
    shared: bool = False
    flag: str | None = None
    choices: tuple[str, ...] = ()
    or_file: bool = False
    hidden: bool = False

    def check(self, name: str, value: Any, kinds: tuple[type, ...]) -> None:
        """Refuse a value of another type or out of range.

        Args:
            name: of the option.
            value: to check.
            kinds: the types allowed; a whole number is allowed for a float.

        Raises:
            UnfreezeError: names the option and what is allowed.
        """
        allowed = (*kinds, Integral) if int in kinds else kinds
        allowed = (*allowed, Real) if float in kinds else allowed
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
            raise UnfreezeError(f"{name} is {value!r}: it must be of type {wanted}")
        if self.choices and value not in self.choices and not self._names_a_file(value):
            hint = did_you_mean(str(value), self.choices)
            more = ", or a YAML file" if self.or_file else ""
            raise UnfreezeError(
                f"{name} is {value!r}: it must be one of {', '.join(self.choices)}{more}.{hint}"
            )
        if not isinstance(value, Real) or isinstance(value, bool):
            return
        number = float(value)
        if self.least is not None and not number >= self.least:
            raise UnfreezeError(f"{name} is {value}: it must be at least {self.least:g}")
        if self.most is not None and not number <= self.most:
            raise UnfreezeError(f"{name} is {value}: it must be at most {self.most:g}")
        if self.above is not None and not number > self.above:
            raise UnfreezeError(f"{name} is {value}: it must be greater than {self.above:g}")

    def _names_a_file(self, value: Any) -> bool:
        return self.or_file and (str(value).endswith((".yaml", ".yml")) or Path(value).is_file())


def _told(help: str, **more: Any) -> dict[str, Option]:
    return {"option": Option(help, **more)}


@attrs.frozen
class TrainOptions:
    """What to train on, how, and where to write the result. Paths may be given as text.

    Examples:
        >>> options = unfreeze.TrainOptions("recordings", out="run", schedule="probe")
        >>> unfreeze.SoundClassifier.from_options(options).sample_rate
        16000
    """

    data: Path = attrs.field(
        converter=Path,
        metadata=_told(
            "Folder with one subfolder per class, a CSV table of clips, or a folder of recordings "
            "with tables of their sounds.",
            shared=True,
        ),
    )
    schedule: str | Schedule = attrs.field(
        default=DEFAULT,
        metadata=_told(
            "Schedule: probe_tune, probe, two_stage, gradual, head_only, full, classic, "
            "surgical:last, or a YAML file."
        ),
    )
    out: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told("Folder to write the run to.", flag="-o"),
    )
    backbone: str = attrs.field(
        default="yamnet",
        metadata=_told(
            "Pretrained network: yamnet, birdnet, efficientat-mn04 or -mn10 (see `unfreeze "
            "backbones`), or a YAML file that describes another.",
            inherited=True,
            shared=True,
        ),
    )
    weights: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told(
            "File with the network's weights; found or downloaded if not given.",
            inherited=True,
            shared=True,
        ),
    )
    epochs: int | None = attrs.field(
        default=None, metadata=_told("Maximum number of epochs per stage.", least=0, shared=True)
    )
    batch_size: int | None = attrs.field(
        default=None, metadata=_told("Patches per training step.", least=1)
    )
    learning_rate: float | None = attrs.field(
        default=None,
        metadata=_told(
            "Learning rate of the first stage; later stages keep their ratio to it.", above=0
        ),
    )
    taps: str = attrs.field(
        default=DEFAULT_TAPS,
        metadata=_told(
            "Where the network is read: auto (at every depth), none (its embedding alone, "
            "with the classic recipe's head), or names of layers with commas between them.",
            inherited=True,
            shared=True,
        ),
    )
    augment: str = attrs.field(
        default=DEFAULT_AUGMENT,
        metadata=_told(
            "Random changes of the training sounds: none, light, strong, or a YAML file.",
            choices=AUGMENTS,
            or_file=True,
            inherited=True,
            shared=True,
        ),
    )
    class_weight: str = attrs.field(
        default=BALANCED,
        metadata=_told(
            "What counts the same in training: each class (balanced), however many clips it has, "
            "or each clip (none); or a YAML file with weights by class.",
            choices=(BALANCED, UNWEIGHTED),
            or_file=True,
            inherited=True,
            shared=True,
        ),
    )
    seed: int = attrs.field(
        default=0,
        metadata=_told(
            "Seed of the split, the initial weights, the order of samples, and dropout.",
            least=0,
            most=2**32 - 1,
            inherited=True,
        ),
    )
    group_regex: str | None = attrs.field(
        default=None,
        metadata=_told(
            "Regular expression for a file's name or path; the text that its first group "
            "matches is the clip's group.",
            inherited=True,
            shared=True,
        ),
    )
    path_column: str | None = attrs.field(
        default=None,
        metadata=_told(
            "Column of a table with the recordings' paths, if its name does not tell.",
            shared=True,
        ),
    )
    label_column: str | None = attrs.field(
        default=None,
        metadata=_told("Column with the classes, likewise.", shared=True),
    )
    audio_folder: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told(
            "Folder that the paths in a table are relative to; the table's own if not given.",
            shared=True,
        ),
    )
    label_map: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told(
            "YAML file that renames, merges or drops classes: lines such as old: new.",
            shared=True,
            flag="--map",
        ),
    )
    annotated: str = attrs.field(
        default="partly",
        metadata=_told(
            "Whether the tables of annotated recordings name every sound of the classes "
            "(fully: the rest is background), or not (partly).",
            choices=("partly", FULLY),
            inherited=True,
            shared=True,
        ),
    )
    multilabel: bool = attrs.field(
        default=False,
        metadata=_told(
            "A clip may have several labels, or none: each class is judged by itself. Found "
            "without this option where a label names several, such as cat;dog.",
            inherited=True,
            shared=True,
        ),
    )
    slow_down: float = attrs.field(
        default=1.0,
        metadata=_told(
            "How many times slower the network hears the recordings: 10 brings bats into the "
            "range that YAMNet hears.",
            least=1,
            most=50,
            inherited=True,
            shared=True,
        ),
    )
    channel: int | None = attrs.field(
        default=None,
        metadata=_told(
            "Channel of the recordings to take, counted from 1; they are mixed if not given.",
            least=1,
            inherited=True,
            shared=True,
        ),
    )
    validation: float = attrs.field(
        default=0.15,
        metadata=_told(
            "Share of clips used to choose the best epoch and to end stages.",
            least=0,
            most=1,
            inherited=True,
            shared=True,
        ),
    )
    test: float = attrs.field(
        default=0.15,
        metadata=_told(
            "Share of clips kept for the final test.", least=0, most=1, inherited=True, shared=True
        ),
    )
    strict: bool = attrs.field(
        default=False, metadata=_told("Treat any unusable file as an error.", shared=True)
    )
    max_bad: float = attrs.field(
        default=0.10,
        metadata=_told(
            "Largest share of unusable files to leave out.", least=0, most=1, shared=True
        ),
    )
    overwrite: bool = attrs.field(
        default=False, metadata=_told("Replace the run in --out.", describes_run=False)
    )
    resume: bool = attrs.field(
        default=False,
        metadata=_told("Resume the interrupted run in --out.", describes_run=False),
    )
    background: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told("Folder of recordings that contain none of the sounds.", shared=True),
    )
    negative: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told("Folder of sounds that are easily mistaken for a class.", shared=True),
    )
    in_noise: bool = attrs.field(
        default=False,
        metadata=_told(
            "Prepare for long recordings: train on computed background, and on the clips in noise.",
            inherited=True,
        ),
    )
    gate: bool = attrs.field(
        default=True,
        metadata=_told(
            "Name no class where only background is heard (noise, hum, wind, rain, tones, babble: "
            "computed, not recorded). Without it, noise is called one of the classes.",
            inherited=True,
        ),
    )
    precision: float | None = attrs.field(
        default=None,
        metadata=_told(
            "Choose each class's threshold so that this share of the sounds found in long "
            "recordings is right, such as 0.95.",
            inherited=True,
        ),
    )
    max_false_alarms: float | None = attrs.field(
        default=None,
        metadata=_told(
            "Choose thresholds for at most so many false alarms in an hour of background, all "
            "classes together.",
            inherited=True,
        ),
    )
    keep_published: bool = attrs.field(
        default=False,
        metadata=_told(
            "Keep the classes that the network was published with (AudioSet's 521, BirdNET's "
            "6,522) as a second output of the model.",
            inherited=True,
        ),
    )
    keep_audioset: bool = attrs.field(
        default=False,
        metadata=_told(
            "The old name of --keep-published.", inherited=True, describes_run=False, hidden=True
        ),
    )
    accept_licence: bool = attrs.field(
        default=False,
        metadata=_told(
            "Accept the licence of the network's weights, where it must be accepted; it is "
            "remembered.",
            describes_run=False,
            shared=True,
            flag="--accept-license",
        ),
    )
    add_to: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told("Earlier run to add the data to; its test clips and settings are kept."),
    )
    even_if_worse: bool = attrs.field(
        default=False,
        metadata=_told(
            "With --add-to: save the model even if it is worse than the earlier one on the earlier "
            "run's test clips, by more than chance.",
            describes_run=False,
        ),
    )
    devices: int = attrs.field(
        default=1,
        metadata=_told(
            "Divide each training step among this many devices of the machine (JAX only).",
            least=1,
            describes_run=False,
        ),
    )
    engine: str = attrs.field(
        default=LOCAL,
        metadata=_told(
            "Where recordings are read: local (the cores of this machine) or ray (a Ray cluster).",
            choices=ENGINES,
            describes_run=False,
            shared=True,
        ),
    )
    address: str | None = attrs.field(
        default=None,
        metadata=_told(
            "With --engine ray: the cluster, such as auto or ray://HOST:10001; one on this machine "
            "alone if not given.",
            describes_run=False,
            shared=True,
        ),
    )
    tensorboard: Path | None = attrs.field(
        default=None,
        converter=optional(Path),
        metadata=_told("Folder for TensorBoard's event files.", describes_run=False),
    )
    mlflow: str | None = attrs.field(
        default=None,
        metadata=_told(
            "MLflow server that gets the settings and each epoch's numbers, such as "
            "http://localhost:5000.",
            describes_run=False,
        ),
    )

    def __attrs_post_init__(self) -> None:
        for name, option in OPTIONS.items():
            option.check(name, getattr(self, name), _KINDS[name])
        # Refuses what cannot be wished for.
        _ = self.wish
        _ = self.cluster
        if self.even_if_worse and self.add_to is None:
            raise UnfreezeError("even_if_worse is for runs that add to another: leave it out")
        if self.keep_audioset:
            object.__setattr__(self, "keep_published", True)

    def as_plain(self) -> dict[str, Any]:
        """The settings that define the run, as plain values for YAML.

        A schedule object appears by its name.
        """
        # Imported here: `unfreeze --help` must not wait for numpy.
        from unfreeze.backbones.registry import full_name

        values: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            if option.describes_run:
                value = self.schedule_name if name == "schedule" else getattr(self, name)
                values[name] = full_name(value) if name == "backbone" else _plain(value)
        return values

    @property
    def wish(self) -> Wish:
        """What thresholds are chosen for."""
        return Wish(self.precision, self.max_false_alarms)

    @property
    def cluster(self) -> Cluster | None:
        """Where recordings are read; None for this machine."""
        return chosen_cluster(self.engine, self.address)

    @property
    def schedule_name(self) -> str:
        """Name of the preset or schedule, or the path of its file."""
        return self.schedule if isinstance(self.schedule, str) else self.schedule.name


OPTIONS: Mapping[str, Option] = {
    field.name: field.metadata["option"] for field in attrs.fields(TrainOptions)
}


# The types of each option: `int | None` is (int, NoneType).
_KINDS = {name: get_args(kind) or (kind,) for name, kind in get_type_hints(TrainOptions).items()}

# What `compare` and `tune` take, too.
SHARED = tuple(name for name, option in OPTIONS.items() if option.shared)


def default_of(name: str) -> Any:
    """The default of an option; None if it has none."""
    default = getattr(attrs.fields(TrainOptions), name).default
    return None if default is attrs.NOTHING else default


def with_fields_of(
    make: Callable[P, Made],
) -> Callable[[Callable[[T, Made], R]], Callable[Concatenate[T, P], R]]:
    """Let a method take the fields of an options class instead of an instance.

    Type checkers, editors and `help` see each field with its type and default. The
    method gets an instance, made from the arguments.

    Args:
        make: the class, or a function with its signature.
    """

    def decorate(method: Callable[[T, Made], R]) -> Callable[Concatenate[T, P], R]:
        @wraps(method)
        def call(owner: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(owner, make(*args, **kwargs))

        own = signature(method)
        first = next(iter(own.parameters.values()))
        fields = signature(make).parameters.values()
        call.__signature__ = own.replace(parameters=[first, *fields])  # type: ignore[attr-defined]
        return call

    return decorate


def command_line(options: TrainOptions) -> str:
    """The command that repeats a run."""
    return shlex.join(command_words(options))


def command_words(options: TrainOptions) -> list[str]:
    """The same, word by word."""
    always = ("out", "schedule", "seed")
    words = ["unfreeze", "train", str(options.data)]
    for name, option in OPTIONS.items():
        value = options.schedule_name if name == "schedule" else getattr(options, name)
        skipped = name == "data" or not option.describes_run or value is None
        if skipped or (name not in always and value == default_of(name)):
            continue
        flag = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
        elif str(value).startswith("-"):
            # By itself it would be read as an option.
            words.append(f"{flag}={value}")
        else:
            words += [flag, str(value)]
    return words


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    # numpy's numbers are not YAML's.
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value
