"""What the tests of exports share."""

import importlib.util

import pytest

from unfreeze.export.formats import FORMATS


def need(name, quantize=None):
    """Skip a test whose format wants a package that is not there."""
    form = FORMATS[name]
    for module in (*form.writers, *(form.quantize[quantize] if quantize else ())):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
