"""Schedules as files: the round trip, and every refusal with its line."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.core import schedule_file
from unfreeze.core.presets import PRESETS
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.core.schedule_file import dump_schedule, parse_schedule, read_schedule, write_schedule
from unfreeze.errors import ScheduleError

HEAD = "unfreeze_schedule: 1\nstages:\n"
ONE = "stages: [{name: a}]"

_names = st.text(min_size=1, max_size=12).filter(lambda name: bool(name.strip()))
_patterns = st.sampled_from(["all", "head", "top:2", "*_bn", "re:^a$", "!conv*", "no", "1e3"])
_metrics = st.sampled_from(["val_loss", "val_accuracy", "loss"])
_monitors = st.sampled_from(["auto", "val_loss", "val_accuracy", "val_my_f1"])
_finite = st.floats(0, 1e6, allow_subnormal=False)
_rates = st.floats(1e-8, 10.0)
_plateaus = st.builds(Plateau, _metrics, st.integers(1, 50), _finite) | st.builds(
    Plateau, st.just("best"), st.integers(1, 50)
)
_reached = st.builds(Reached, st.sampled_from(["val_f1", "odd"]), _finite, st.just("max"))
_stages = st.builds(
    Stage,
    name=_names,
    train=_patterns | st.lists(_patterns | _names, min_size=1, max_size=4),
    epochs=st.integers(0, 500),
    learning_rate=_rates
    | st.dictionaries(_names, _finite, max_size=3).map(
        lambda factors: {**factors, "default": 1e-3}
    ),
    optimizer=st.none() | st.sampled_from(["adam", "AdamW", "sgd"]),
    batch_norm=st.sampled_from(["frozen", "affine", "train"]),
    until=st.none() | _plateaus | _reached,
    reduce=st.none() | st.builds(ReduceRate, _metrics, st.floats(0.01, 0.99), st.integers(1, 9)),
    batch_size=st.none() | st.integers(1, 1024),
    layer_decay=st.none() | st.floats(0.01, 1.0),
    cache=st.sampled_from(["auto", "always", "never", "float16", "bfloat16"]),
    views=st.integers(1, 8),
)


@st.composite
def _schedules(draw: st.DrawFn) -> Schedule:
    stages = draw(st.lists(_stages, min_size=1, max_size=4, unique_by=lambda stage: stage.name))
    if not any(stage.epochs for stage in stages):
        stages[0] = replace(stages[0], epochs=1)
    parts = st.lists(_names, min_size=1, max_size=3)
    groups = draw(st.none() | st.lists(_names | parts, min_size=1, max_size=3))
    return Schedule(tuple(stages), draw(_names), groups, draw(_monitors))


@settings(max_examples=25, deadline=None)
@given(_schedules())
def test_parse_of_dump_is_the_schedule(schedule: Schedule) -> None:
    assert parse_schedule(dump_schedule(schedule)) == schedule


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    write_schedule(PRESETS[name](), file)
    assert read_schedule(file) == PRESETS[name]()


def test_every_field_of_a_stage_has_a_reader() -> None:
    assert {field.name for field in fields(Stage)} - {"callbacks"} == set(schedule_file._READERS)


def test_defaults_are_left_out_but_the_plain_facts_stand() -> None:
    text = dump_schedule(Schedule((Stage("one"),)))
    body = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
    assert body == (
        "unfreeze_schedule: 1\nname: custom\nstages:\n- name: one\n  train: all\n"
        "  epochs: 10\n  learning_rate: 0.001\n"
    )
    assert "batch_norm:  frozen" in text


def test_help_on_top_is_true() -> None:
    """The examples in the comments are read as they stand there."""
    text = HEAD + (
        '- name: a\n  learning_rate: {default: 1e-3, "block_*": 0.1}\n'
        "  optimizer: {name: AdamW, weight_decay: 0.01}\n"
        "  until: {reached: {metric: val_accuracy, value: 0.9}}\n"
        "  reduce: {metric: val_loss, factor: 0.5, patience: 3}\n"
        "- name: b\n"
        "  learning_rate: {schedule: CosineDecay, initial_learning_rate: 1e-3, decay_steps: 500}\n"
        "  until: {plateau: {metric: best, patience: 5}}\n"
        "monitor: auto\n"
    )
    schedule = parse_schedule(text)
    first, second = schedule
    assert schedule.monitor == "auto"
    assert first.learning_rate == {"default": 1e-3, "block_*": 0.1}
    assert isinstance(first.optimizer, keras.optimizers.AdamW)
    assert first.optimizer.weight_decay == 0.01
    assert first.until == Reached("val_accuracy", 0.9)
    assert first.reduce == ReduceRate("val_loss", 0.5, 3)
    assert second.until == Plateau("best", 5)
    assert float(second.learning_rate(250)) == pytest.approx(5e-4)


_rate_schedules: list[tuple[str, dict[str, Any]]] = [
    ("CosineDecay", {"initial_learning_rate": 1e-3, "decay_steps": 100, "warmup_steps": 5}),
    ("CosineDecayRestarts", {"initial_learning_rate": 1e-3, "first_decay_steps": 10}),
    ("ExponentialDecay", {"initial_learning_rate": 1e-3, "decay_steps": 9, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 1e-3, "decay_steps": 9, "decay_rate": 0.5}),
    ("PiecewiseConstantDecay", {"boundaries": [3, 7], "values": [0.1, 0.2, 0.3]}),
    ("PolynomialDecay", {"initial_learning_rate": 1e-3, "decay_steps": 9, "cycle": True}),
]


@pytest.mark.parametrize(("name", "options"), _rate_schedules)
@pytest.mark.parametrize("mapped", [False, True])
def test_rate_schedules(name: str, options: dict[str, Any], mapped: bool) -> None:
    rate = getattr(keras.optimizers.schedules, name)(**options)
    given_rate = {"default": rate, "conv*": 0.1} if mapped else rate
    back = parse_schedule(dump_schedule(Schedule((Stage("a", learning_rate=given_rate),))))
    found = back.stages[0].learning_rate
    if mapped:
        assert found["conv*"] == 0.1
        found = found["default"]
    assert type(found) is type(rate)
    assert found.get_config() == rate.get_config()


def test_optimizer_objects() -> None:
    optimizer = keras.optimizers.SGD(learning_rate=5.0, momentum=0.9, nesterov=True, clipnorm=1.0)
    text = dump_schedule(Schedule((Stage("a", optimizer=optimizer),)))
    assert "nesterov: true" in text
    back = parse_schedule(text).stages[0].optimizer
    left_out = {"name", "learning_rate"}
    found = {k: v for k, v in back.get_config().items() if k not in left_out}
    assert found == {k: v for k, v in optimizer.get_config().items() if k not in left_out}


def test_layers_are_written_as_their_names() -> None:
    head, other = keras.layers.Dense(2, name="top_dense"), keras.layers.Dense(2, name="mid")
    text = dump_schedule(Schedule((Stage("a", train=[head, other]), Stage("b", train=head))))
    assert [stage.train for stage in parse_schedule(text)] == [["top_dense", "mid"], "top_dense"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, "callbacks are code"),
        ({"train": lambda layer: True}, "is code and cannot be written"),
        ({"train": keras.layers.Dense(1, name="head")}, "read as a pattern or group; rename it"),
        ({"train": [keras.layers.Dense(1, name="x"), "x"]}, "two layers .* named 'x'"),
        ({"learning_rate": lambda: 0.1}, "learning_rate=.* cannot be written"),
        ({"until": Reached("val_loss", float("inf"))}, "must be finite"),
        (
            {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
            "not one of Keras' own",
        ),
    ],
)
def test_what_cannot_stand_in_a_file(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ScheduleError, match=f"stage 'a'.*{reason}"):
        dump_schedule(Schedule((Stage("a", **change),)))


def test_a_subclass_of_an_optimizer_is_not_taken_for_it() -> None:
    class SGD(keras.optimizers.SGD):
        pass

    with pytest.raises(ScheduleError, match="SGD is not one of Keras' own"):
        dump_schedule(Schedule((Stage("a", optimizer=SGD()),)))


def test_custom_rate_schedule_is_refused_both_ways() -> None:
    class Mine(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> float:
            return 0.1

        def get_config(self) -> dict[str, Any]:
            return {}

    with pytest.raises(ScheduleError, match="Mine is not one of Keras' own classes"):
        dump_schedule(Schedule((Stage("a", learning_rate=Mine()),)))
    with pytest.raises(ScheduleError, match=r"unknown rate schedule 'os\.system'"):
        parse_schedule(HEAD + "- name: a\n  learning_rate: {schedule: os.system}")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("stages: []", 1, "add the line `unfreeze_schedule: 1`"),
        ("unfreeze_schedule: 2\nstages: []", 1, "newer than 1"),
        ("unfreeze_schedule: 0\nstages: []", 1, "not known"),
        ("unfreeze_schedule: 1\nstage: []", 2, "unknown key 'stage'. Did you mean 'stages'"),
        ("unfreeze_schedule: 1\nname: x", 1, "needs `stages:`"),
        ("unfreeze_schedule: 1\nstages: []", 2, "at least one stage"),
        ("unfreeze_schedule: 1\nstages: all", 2, "must be a list, not the text 'all'"),
        ("- a", 1, "a schedule must be `key: value` lines, not a list"),
        ("unfreeze_schedule: 1\ngroups: []\n" + ONE, 2, "groups: each needs a pattern"),
        ("unfreeze_schedule: 1\ngroups: [a, []]\n" + ONE, 2, "groups: each needs a pattern"),
        ("unfreeze_schedule: 1\ngroups: a*\n" + ONE, 2, "groups must be a list"),
        ("unfreeze_schedule: 1\ngroups:\n- a\n- 3\n" + ONE, 4, "groups must be text"),
        ("unfreeze_schedule: 1\nmonitor: speed\n" + ONE, 2, "monitor 'speed': is higher or lower"),
        ("unfreeze_schedule: 1\nmonitor: 3\n" + ONE, 2, "monitor must be text"),
        (HEAD + "- all", 3, "a stage must be `key: value` lines"),
        (HEAD + "- train: all", 3, "needs a name"),
        (HEAD + "- {name: a, epochs: 0}", 2, "every stage has 0 epochs"),
        (HEAD + "- name: a\n- name: b\n- name: a", 5, "two stages are named 'a'"),
        (HEAD + "- name: a\n  epochs: 3\n  epochs: 4", 5, "appears twice"),
        (HEAD + "- name: a\n  epochs: three", 4, "epochs must be a whole number"),
        (HEAD + "- name: a\n  epochs: 2.5", 4, "epochs must be a whole number, not the number"),
        (HEAD + "- name: a\n  epochs: true", 4, "epochs must be a whole number, not true"),
        (HEAD + "- name: a\n  train: x\n  epochs: -1", 5, "epochs -1 must be"),
        (HEAD + "- name: 12", 3, 'in quotes \\("12"\\)'),
        (HEAD + "- name: a\n  train:", 4, "train must be text, not nothing"),
        (HEAD + "- name: a\n  train: []", 4, "trains nothing"),
        (HEAD + "- name: a\n  train: [all, 3]", 4, "train must be text, not the number 3"),
        (HEAD + "- name: a\n  train:\n  - all\n  - [b]", 6, "train must be a single value"),
        (HEAD + "- name: a\n  callbacks: []", 4, "callbacks are code"),
        (HEAD + "- name: a\n  batch_norm: off", 4, "batch_norm 'off' must be one of"),
        (HEAD + "- name: a\n  cache: {a: 1}", 4, "cache must be a single value"),
        (HEAD + "- name: a\n  learning_rate: fast", 4, "must be a number, not the text 'fast'"),
        (HEAD + "- name: a\n  learning_rate: 0", 4, "learning_rate 0 must be above 0"),
        (HEAD + "- name: a\n  learning_rate: {conv: 1}", 4, "needs the key 'default'"),
        (HEAD + "- name: a\n  learning_rate:\n    default: 1\n    x: y", 6, "'x' must be a number"),
        (HEAD + "- name: a\n  learning_rate: {default: {a: 1}}", 4, "must be a number, a schedule"),
        (HEAD + "- name: a\n  learning_rate: {schedule: Cosine}", 4, "Did you mean 'CosineDecay'"),
        (HEAD + "- name: a\n  learning_rate: {schedule: CosineDecay}", 4, "missing a required"),
        (
            HEAD + "- name: a\n  learning_rate: {schedule: CosineDecay, steps: 3}",
            4,
            "unknown key 'steps'. Did you mean 'decay_steps'",
        ),
        (HEAD + "- name: a\n  optimizer: adamm", 4, "Did you mean 'adam'"),
        (HEAD + "- name: a\n  optimizer: multioptimizer", 4, "unknown optimizer 'multioptimizer'"),
        (HEAD + "- name: a\n  optimizer: {momentum: 1}", 4, "needs a name"),
        (
            HEAD + "- name: a\n  optimizer: {name: SGD, momemtum: 0.9}",
            4,
            "SGD: unknown key 'momemtum'. Did you mean 'momentum'",
        ),
        (HEAD + "- name: a\n  optimizer: {name: SGD, momentum: x}", 4, "SGD: momentum 'x'"),
        (HEAD + "- name: a\n  optimizer: {name: SGD, momentum: 3.0}", 4, "SGD: .*between"),
        (
            HEAD + "- name: a\n  optimizer:\n    name: SGD\n    learning_rate: 1",
            6,
            "the rate belongs to the stage",
        ),
        (HEAD + "- name: a\n  until: plateau", 4, "until must be `key: value`"),
        (HEAD + "- name: a\n  until: {}", 4, "until needs one of plateau or reached"),
        (HEAD + "- name: a\n  until: {plato: {}}", 4, "Did you mean 'plateau'"),
        (HEAD + "- name: a\n  until: {reached: {value: 1}}", 4, "needs the key 'metric'"),
        (HEAD + "- name: a\n  until:\n    plateau:\n      metric: foo", 6, "is higher or lower"),
        (
            HEAD + "- name: a\n  until:\n    plateau:\n      metric: loss\n      patience: 0",
            7,
            "patience 0",
        ),
        (HEAD + "- name: a\n  reduce: {factor: 2}", 4, "factor 2 must lie between"),
    ],
)
def test_refusals_name_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(ScheduleError, match=rf"^plan\.yaml:{line}: .*{reason}"):
        parse_schedule(text, "plan.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"none\.yaml: cannot be read: No such file"):
        read_schedule(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScheduleError, match="not UTF-8"):
        read_schedule(tmp_path / "odd.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + (HEAD + "- name: a").encode())
    assert read_schedule(tmp_path / "bom.yaml").stages[0].name == "a"
