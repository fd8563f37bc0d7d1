"""Sentences: they break at words in a terminal, and stay one line in a file or a pipe."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def in_lines(text: str, console: "Console") -> str:
    """Break sentences at words for a terminal; a file or a pipe gets them as they are.

    Commands and paths that are to be copied are better not broken.

    Args:
        text: a word that is longer than a line, such as a path, stays whole.
        console: where it will be printed.
    """
    if not console.is_terminal:
        return text
    fit = textwrap.TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(fit.wrap(line)) for line in text.split("\n"))


def say(console: "Console", text: str, style: str | None = None) -> None:
    """Print sentences as `in_lines` breaks them; what looks like rich's markup stays as it is."""
    from rich.text import Text

    console.print(Text(in_lines(text, console)), style=style, soft_wrap=True)


def tell(text: str) -> None:
    """Print a sentence to stderr, so that it is no part of what a command puts out."""
    from rich.console import Console

    say(Console(stderr=True), text)
