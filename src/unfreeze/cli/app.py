"""The command line's table of commands."""

from typing import Annotated

import typer

from unfreeze.cli.backbones import backbones
from unfreeze.cli.compare import compare
from unfreeze.cli.demo import demo
from unfreeze.cli.embed import embed
from unfreeze.cli.evaluate import evaluate
from unfreeze.cli.export import export
from unfreeze.cli.head import head
from unfreeze.cli.inspect import inspect
from unfreeze.cli.listen import listen
from unfreeze.cli.plan import plan
from unfreeze.cli.predict import predict
from unfreeze.cli.report import report
from unfreeze.cli.review import review
from unfreeze.cli.search import search
from unfreeze.cli.segments import segments
from unfreeze.cli.serve import serve
from unfreeze.cli.studio import studio
from unfreeze.cli.train import train
from unfreeze.cli.tune import tune
from unfreeze.cli.weights import weights
from unfreeze.version import __version__

app = typer.Typer(
    help="Train sound classifiers in stages: freeze a pretrained base, train the head, unfreeze.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unfreeze {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version),
    ] = False,
) -> None:
    """Train sound classifiers in stages: freeze a pretrained base, train the head, unfreeze."""


for command in (
    train,
    compare,
    tune,
    evaluate,
    report,
    predict,
    listen,
    segments,
    review,
    embed,
    search,
    head,
    export,
    serve,
    studio,
    inspect,
    plan,
    backbones,
    weights,
    demo,
):
    app.command()(command)
