"""Fixtures of the commands, some shared with the tests of detection."""

import pytest
import typer
from typer.testing import CliRunner

from toy_detection import classifier, scene, toy_run  # noqa: F401
from unfreeze.cli.inspect import inspect


@pytest.fixture(scope="session")
def inspected():
    """Run `unfreeze inspect` in this process; returns what it prints, or raises what it raises."""
    app = typer.Typer()
    app.command()(inspect)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run
