"""What the site shows beside the pages in `docs`: the command line, and the list of changes.

MkDocs calls `on_files` and `on_page_markdown` when it builds the site (`mkdocs.yml`, `hooks`).
"""

import re
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.structure.files import File, Files
from typer.main import get_command

from unfreeze.cli.app import app
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, default_of

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those in `docs`."""
    files.append(File.generated(config, "reference/commands.md", content=command_reference()))
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    files.append(File.generated(config, "changes.md", content=changes.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Name files outside of `docs` without a link, as the site does not have them."""
    markdown = markdown.replace("<!-- the fields of TrainOptions -->", training_options())
    return re.sub(r"\[([^\]]+)\]\(\.\./(?!keras\.md|train\.md)[^)]*\)", r"`\1`", markdown)


def training_options() -> str:
    """A row for each field of `TrainOptions`, as Markdown."""
    kinds = get_type_hints(TrainOptions)
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, option in OPTIONS.items():
        if not option.hidden:
            kind = getattr(kinds[name], "__name__", str(kinds[name])).replace("pathlib.", "")
            given = "required" if name == "data" else f"`{default_of(name)!r}`"
            kind = _cell(re.sub(r"unfreeze(\.\w+)*\.", "", kind))
            rows.append(f"| `{name}` | {kind} | {given} | {_cell(option.help)} |")
    return "\n".join(rows)


def command_reference() -> str:
    """All commands with their arguments and options, as Markdown."""
    parts = [
        "# Command line",
        "`unfreeze COMMAND --help` prints the same in the terminal. Every command ends with 0 if "
        "all went well, with 2 if an input or an option is wrong, with 130 if you stopped it.",
    ]
    for name, command in get_command(app).commands.items():
        context = command.context_class(command, info_name=f"unfreeze {name}")
        pieces = command.collect_usage_pieces(context)
        usage = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), " ".join(pieces))
        parts += [
            f"## unfreeze {name}",
            _prose(command.help or ""),
            f"```sh\nunfreeze {name} {usage}\n```",
            *_table("argument", command, context),
            *_table("option", command, context),
        ]
    return "\n\n".join(parts) + "\n"


def _table(kind: str, command: Any, context: Any) -> list[str]:
    records = [
        param.get_help_record(context) for param in command.params if param.param_type_name == kind
    ]
    rows = [f"| `{names}` | {_cell(text)} |" for names, text in filter(None, records)]
    return ["\n".join([f"| {kind} | meaning |", "|---|---|", *rows])] if rows else []


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.replace("\b", "").splitlines()).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")
