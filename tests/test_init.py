"""The public names: each is there, lazily, and type checkers see it."""

import ast
import importlib
import subprocess
import sys
from importlib.resources import files

import pytest

import unfreeze

STUB = ast.parse((files("unfreeze") / "__init__.pyi").read_text(encoding="utf-8"))
IMPORTS = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
HOME = {alias.name: f"unfreeze.{node.module}" for node in IMPORTS for alias in node.names}


@pytest.mark.parametrize("name", HOME)
def test_a_public_name_is_the_one_of_its_module(name):
    assert getattr(unfreeze, name) is getattr(importlib.import_module(HOME[name]), name)


def test_the_stub_states_each_name_once_for_all_readers():
    aliases = [alias for node in IMPORTS for alias in node.names]
    assert len(IMPORTS) == len(STUB.body)
    assert len(aliases) == len(HOME)
    # `from x import y as y` is how a stub says that a name is public.
    assert all(alias.asname == alias.name for alias in aliases)
    assert sorted(unfreeze.__all__) == sorted(dir(unfreeze)) == sorted(HOME)
    assert {"SoundClassifier", "fit", "two_stage", "UnfreezeError"} <= HOME.keys()


def test_the_package_says_that_it_has_types():
    assert (files("unfreeze") / "py.typed").is_file()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="unfrozen"):
        _ = unfreeze.unfrozen


def test_import_brings_nothing_heavy():
    heavy = "{'keras', 'numpy', 'tensorflow', 'torch', 'jax', 'matplotlib', 'typer', 'sklearn'}"
    code = f"import sys, unfreeze; unfreeze.UnfreezeError; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
