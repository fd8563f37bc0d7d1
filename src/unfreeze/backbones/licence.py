"""Licences of pretrained weights: what they say, and whether the user has accepted them.

A licence that binds what users make from the weights is shown before the first use, and
must be accepted: with `--accept-licence`, with `accept_licence=True` in Python, or with the
variable UNFREEZE_ACCEPT_LICENCE, which holds names of backbones with commas between them. An
acceptance is remembered in the cache folder, `<cache>/licences/<backbone>.json`; a licence
with another text must be accepted again.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from unfreeze.errors import WeightsError
from unfreeze.files import make_folder, write_json

VARIABLE = "UNFREEZE_ACCEPT_LICENCE"


@dataclass(frozen=True)
class Licence:
    """The licence of a backbone's weights.

    Attributes:
        name: its short name, such as "CC BY-NC-SA 4.0".
        url: its text.
        of: what it covers, for sentences.
        terms: what it asks of the user, a clause each.
        credit: whom to name; empty if nobody must be named.
        must_accept: whether the user must accept it before the first use. It then covers
            what is made from the weights, too, and its notice goes with that.
    """

    name: str
    url: str
    of: str
    terms: tuple[str, ...] = ()
    credit: str = ""
    must_accept: bool = False

    def text(self) -> str:
        """What the user must know, in some lines."""
        lines = [f"Licence of {self.of}: {self.name} ({self.url})"]
        lines += [f"  - {term}" for term in self.terms]
        lines += [f"  Credit: {self.credit}"] if self.credit else []
        return "\n".join(lines)

    def notice(self) -> str:
        """What goes with a model that was made from the weights; one paragraph."""
        asks = "; ".join(self.terms)
        return (
            f"This model was trained from {self.of}, and is under the same licence, {self.name} "
            f"({self.url}): {asks}. Credit: {self.credit}. Changed: the network's last layer was "
            "replaced, and its other layers may have been trained further, by unfreeze."
        )


def is_accepted(backbone: str, licence: Licence | None, cache: Path) -> bool:
    """Whether weights may be used: the licence needs no acceptance, or has it.

    Args:
        backbone: its name.
        licence: of its weights; None for one that asks nothing.
        cache: the root of the cache.
    """
    if licence is None or not licence.must_accept:
        return True
    named = os.environ.get(VARIABLE, "").replace(",", " ").split()
    if backbone in named:
        return True
    try:
        kept = json.loads(_file(backbone, cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(kept == {"accepted": _plain(licence)})


def accept(backbone: str, licence: Licence, cache: Path) -> None:
    """Remember that the user accepts a licence.

    Raises:
        WeightsError: the cache folder cannot be written.
    """
    file = _file(backbone, cache)
    try:
        make_folder(file.parent)
        write_json(file, {"accepted": _plain(licence)})
    except OSError as error:
        raise WeightsError(
            f"The cache folder {file.parent} cannot be used: {error}. "
            f"Set UNFREEZE_CACHE to a folder that you can write to."
        ) from error


def require(backbone: str, licence: Licence | None, cache: Path) -> None:
    """Refuse weights whose licence was not accepted.

    Raises:
        WeightsError: holds the licence, and says how to accept it.
    """
    if licence is None or is_accepted(backbone, licence, cache):
        return
    raise WeightsError(
        f"{licence.text()}\n"
        f"This licence must be accepted before {backbone} is used: repeat the command with "
        f"--accept-licence (in Python: accept_licence=True), or set {VARIABLE}={backbone}."
    )


def _file(backbone: str, cache: Path) -> Path:
    return cache / "licences" / f"{backbone}.json"


def _plain(licence: Licence) -> dict[str, object]:
    return {**asdict(licence), "terms": list(licence.terms)}
