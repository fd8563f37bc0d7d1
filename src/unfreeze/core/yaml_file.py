"""YAML read with care: plain values only, and every complaint with file and line.

YAML itself constructs nothing: texts are composed into nodes and read by the
functions below, each of which knows what it expects. Tags, anchors and aliases
are refused (so no code is loaded, and no small text grows huge), and so are
repeated keys, several documents, and texts that are very long or deep. Scalars
follow YAML 1.2's core rules: `1e-3` is a number, `no` is text.
"""

import math
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from unfreeze.errors import ScheduleError, did_you_mean

_MAX_CHARACTERS = 1_000_000
_MAX_DEPTH = 20
_INT = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
_QUOTE_HINT = 'text that starts with * or ! must be in quotes, as in train: "*_bn"'

Pairs = dict[str, tuple[yaml.Node, yaml.Node]]
Read = Callable[[yaml.Node, str], Any]


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file.

    Raises:
        ScheduleError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ScheduleError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ScheduleError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def compose(text: str, source: str) -> yaml.Node:
    """Turn a YAML text into nodes.

    Args:
        text: the whole file.
        source: the file's name, for messages.

    Raises:
        ScheduleError: it is not YAML, is empty, or holds something that is refused.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ScheduleError(f"{source}: longer than {_MAX_CHARACTERS:,} characters")
    try:
        _refuse_dangerous(text, source)
        node = _loader(text, source).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        reason = " ".join(part for part in (error.context, error.problem) if part)
        hint = f"; {_QUOTE_HINT}" if re.search("alias|anchor|tag", reason) else ""
        raise ScheduleError(f"{source}:{line}: not valid YAML: {reason}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise ScheduleError(
            f"{source}:{line}: not valid YAML: character U+{code:04X} is not allowed"
        ) from None
    if node is None:
        raise ScheduleError(f"{source}: the file is empty")
    return node


def error_at(node: yaml.Node, reason: str) -> ScheduleError:
    """An error that names the file and line of a node."""
    return ScheduleError(f"{node.start_mark.name}:{node.start_mark.line + 1}: {reason}")


def pairs(node: yaml.Node, what: str, known: Collection[str] | None = None) -> Pairs:
    """The keys of a mapping with their key and value nodes.

    Args:
        node: must be a mapping.
        what: what it describes, for messages.
        known: the keys that it may have; None allows any.
    """
    if not isinstance(node, yaml.MappingNode):
        raise error_at(node, f"{what} must be `key: value` lines, not {_kind(node)}")
    found: Pairs = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise error_at(key_node, f"{what}: a key must be plain text, not {_kind(key_node)}")
        if key in found:
            first = found[key][0].start_mark.line + 1
            raise error_at(key_node, f"{what}: key {key!r} appears twice (first in line {first})")
        if known is not None and key not in known:
            raise error_at(key_node, f"{what}: unknown key {key!r}{closest(key, known)}")
        found[key] = (key_node, value)
    return found


def items(node: yaml.Node, what: str) -> list[yaml.Node]:
    """The nodes of a list."""
    if not isinstance(node, yaml.SequenceNode):
        raise error_at(node, f"{what} must be a list, not {_kind(node)}")
    return list(node.value)


def closest(word: str, known: Collection[str]) -> str:
    """End a sentence, and add one with the closest known word, or else all of them."""
    return "." + (did_you_mean(word, known) or f" Known: {', '.join(known)}")


def text(node: yaml.Node, what: str) -> str:
    """A text. Here and below, `what` names it in messages."""
    value = _scalar(node, what)
    if not isinstance(value, str):
        quote = f'; in quotes ("{node.value}") it would be text' if node.value else ""
        raise error_at(node, f"{what} must be text, not {_kind(node)}{quote}")
    return value


def boolean(node: yaml.Node, what: str) -> bool:
    """`true` or `false`."""
    value = _scalar(node, what)
    if not isinstance(value, bool):
        raise error_at(node, f"{what} must be true or false, not {_kind(node)}")
    return value


def whole(node: yaml.Node, what: str) -> int:
    """A whole number."""
    value = _scalar(node, what)
    if isinstance(value, bool) or not isinstance(value, int):
        raise error_at(node, f"{what} must be a whole number, not {_kind(node)}")
    return value


def number(node: yaml.Node, what: str) -> float:
    """A finite number."""
    value = _scalar(node, what)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise error_at(node, f"{what} must be a number, not {_kind(node)}")
    return value


def optional(reader: Read) -> Read:
    """A reader that also takes null, `~` or nothing, as None."""

    def read(node: yaml.Node, what: str) -> Any:
        empty = isinstance(node, yaml.ScalarNode) and _scalar(node, what) is None
        return None if empty else reader(node, what)

    return read


def plain(node: yaml.Node, what: str) -> Any:
    """Any scalar, or a list of scalars."""
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(part, what) for part in node.value]
    return _scalar(node, what)


def resolve(word: str) -> Any:
    """What an unquoted scalar stands for; infinity and NaN stay text."""
    if word.lower() in _WORDS and word in (word.lower(), word.title(), word.upper()):
        return _WORDS[word.lower()]
    if _INT.fullmatch(word) and len(word) < 20:
        return int(word)
    if _FLOAT.fullmatch(word) and math.isfinite(float(word)):
        return float(word)
    return word


def dump(value: Any) -> str:
    """Plain values as YAML that `compose` reads back the same."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what only YAML 1.2 takes for a number (`1e-3`), and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    ambiguous = not isinstance(resolve(value), str) or _NOT_FINITE.fullmatch(value)
    style = '"' if ambiguous or not value.isprintable() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text_node)


def _loader(content: str, source: str) -> yaml.SafeLoader:
    loader = yaml.SafeLoader(content)
    loader.name = source
    return loader


def _refuse_dangerous(content: str, source: str) -> None:
    # Events come before anything is built, so a bomb is never unfolded.
    depth = documents = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise ScheduleError(f"{source}:{line}: only one document per file, without `---`")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ScheduleError(
                f"{source}:{line}: anchors and aliases are not allowed; {_QUOTE_HINT}"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ScheduleError(f"{source}:{line}: the tag {tag!r} is not allowed; {_QUOTE_HINT}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ScheduleError(f"{source}:{line}: nested deeper than {_MAX_DEPTH} levels")


def _scalar(node: yaml.Node, what: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise error_at(node, f"{what} must be a single value, not {_kind(node)}")
    if node.style is not None:
        return node.value
    if _NOT_FINITE.fullmatch(node.value):
        raise error_at(node, f"{what} must be finite, not {node.value}")
    return resolve(node.value)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "`key: value` lines"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    plain_style = isinstance(node, yaml.ScalarNode) and node.style is None
    value = resolve(node.value) if plain_style else node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{node.value} (true or false)"
    if isinstance(value, int | float):
        return f"the number {node.value}"
    return f"the text {value!r}"
