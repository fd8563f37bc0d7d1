"""Sentences: they break at words in a terminal, and stay one line in a file or a pipe."""

import re
import textwrap
from typing import TYPE_CHECKING

from unfreeze.errors import show

if TYPE_CHECKING:
    from rich.console import Console

    from unfreeze.classifier import SoundClassifier
    from unfreeze.detection.events import DetectOptions

# Stands for a space that no line ends at; no text has it.
_SPACE = "\0"
# Classes that are named one by one.
_REFUSED = 8


def in_lines(text: str, console: "Console") -> str:
    """Break sentences at words for a terminal; a file or a pipe gets them as they are.

    Args:
        text: a word that is longer than a line, such as a path, stays whole, and so does a
            command between backticks.
        console: where it will be printed.
    """
    if not console.is_terminal:
        return text
    fit = textwrap.TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
    whole = re.sub("`[^`\n]+`", lambda found: found[0].replace(" ", _SPACE), text)
    lines = "\n".join("\n".join(fit.wrap(line)) for line in whole.split("\n"))
    return lines.replace(_SPACE, " ")


def say(console: "Console", text: str, style: str | None = None) -> None:
    """Print sentences as `in_lines` breaks them; what looks like rich's markup stays as it is."""
    from rich.text import Text

    console.print(Text(in_lines(text, console)), style=style, soft_wrap=True)


def tell(text: str) -> None:
    """Print a sentence to stderr, so that it is no part of what a command puts out."""
    from rich.console import Console

    say(Console(stderr=True), text)


def say_what_is_granted(classifier: "SoundClassifier", options: "DetectOptions") -> None:
    """Say what a wish for thresholds costs, and for which classes it cannot be granted."""
    wish = options.wish
    if not wish.is_given:
        return
    from unfreeze.pipeline.thresholds import counts_of, false_alarms

    chosen = classifier.thresholds_for(
        precision=options.precision, max_false_alarms=options.max_false_alarms
    )
    counts = counts_of(classifier.metrics, classifier.labels)
    recalls = [choice.recall for choice in chosen.values() if choice.recall is not None]
    words = []
    if recalls:
        words.append(f"{sum(recalls) / len(recalls):.0%} of the sounds are found")
    if counts is not None and counts.hours:
        rate, (low, high) = false_alarms(counts, list(chosen.values()))
        words.append(
            f"there are {rate:.3g} false alarms in an hour of background ({low:.3g} to {high:.3g}, "
            "95 %)"
        )
    held = f"on the sounds held out in training, {' and '.join(words)}"
    lines = [f"thresholds for {wish}: {held}"] if words else []
    refused = {name: choice for name, choice in chosen.items() if not choice.granted}
    for name, choice in list(refused.items())[:_REFUSED]:
        best = "nothing was found at any threshold"
        if choice.precision is not None:
            best = f"its most precise threshold has {choice.precision:.2f}"
        lines.append(f"{show(name)} cannot have {wish}: {best}")
    if len(refused) > _REFUSED:
        lines.append(f"so it is with {len(refused) - _REFUSED} more classes")
    for line in lines:
        tell(f"note: {line}")


def say_without_background(classifier: "SoundClassifier") -> None:
    """Say that noise will be called a class, where the model was trained without background."""
    if not classifier.knows_background:
        tell(
            "note: this model was trained without background, so it calls noise one of its "
            "classes: train it again, without --no-gate (unfreeze train DATA --out RUN)"
        )
