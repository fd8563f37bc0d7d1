import inspect
import re
from pathlib import Path

import attrs
import numpy as np
import pytest
import yaml

from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, command_line, with_fields_of

DATA = Path("data")


def test_plain_options_are_yaml_and_complete():
    options = TrainOptions(DATA, out=Path("run"), schedule="full", seed=4)
    plain = yaml.safe_load(yaml.safe_dump(options.as_plain()))
    assert plain["data"] == str(DATA.absolute())
    assert (plain["schedule"], plain["seed"], plain["epochs"]) == ("full", 4, None)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_says_what_it_is_for(name):
    assert OPTIONS[name].help.endswith(".")
    assert OPTIONS[name].help[0].isupper() or name == "schedule"


def test_values_out_of_range_are_refused_by_name():
    for given, message in (
        ({"test": 1.5}, "test is 1.5: it must be at most 1"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: it must be greater than 0"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"validation": float("nan")}, "validation is nan"),
    ):
        with pytest.raises(UnfreezeError, match=re.escape(message)):
            TrainOptions(DATA, **given)


def test_paths_may_be_text():
    assert TrainOptions("data", out="run", weights="w.safetensors") == TrainOptions(
        Path("data"), out=Path("run"), weights=Path("w.safetensors")
    )


def test_the_command_repeats_what_was_given_and_no_default():
    options = TrainOptions("my data", out="run", schedule="probe", test=0.2)
    options = attrs.evolve(options, strict=True, overwrite=True, keep_audioset=True)
    assert command_line(options) == (
        "unfreeze train 'my data' --schedule probe --out run --seed 0 --test 0.2 --strict "
        "--keep-published"
    )


def test_a_method_takes_the_fields_of_the_options():
    class Taker:
        @with_fields_of(TrainOptions)
        def take(self, options):
            """Takes them."""
            return options

    assert Taker().take("d", epochs=3) == TrainOptions("d", epochs=3)
    assert list(inspect.signature(Taker().take).parameters) == list(OPTIONS)
    assert inspect.signature(Taker().take).parameters["seed"].default == 0
    with pytest.raises(TypeError, match="epocs"):
        Taker().take("d", epocs=3)


def test_values_of_another_type_are_refused_by_name():
    for given, message in (
        ({"strict": "no"}, "strict is 'no': it must be of type bool"),
        ({"seed": "3"}, "seed is '3': it must be of type int"),
        ({"seed": True}, "seed is True: it must be of type int"),
        ({"epochs": 2.5}, "epochs is 2.5: it must be of type int or None"),
        ({"test": None}, "test is None: it must be of type float"),
        ({"schedule": 3}, "schedule is 3: it must be of type str or Schedule"),
    ):
        with pytest.raises(UnfreezeError, match=re.escape(message)):
            TrainOptions(DATA, **given)
    found = TrainOptions(DATA, seed=np.int64(3), test=0, validation=np.float32(0.5)).as_plain()
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    assert (found["seed"], found["test"], found["validation"]) == (3, 0, 0.5)
