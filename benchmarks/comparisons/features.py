"""Files to log-mel patches: decode, resample, spectrum, patches."""

import dataclasses

from benchmarks.plan import Comparison, Options, Ratio, Side
from unfreeze.backbones.frontend import FrontEnd

OURS, TWO = "ours, one core", "ours, two cores"
CHECKED = "ours, one core, with the check of all files"
LIBROSA, TORCHAUDIO = "librosa, one core", "torchaudio, one core"
_SIDES = "benchmarks.sides."


def declare(options: Options) -> Comparison:
    """Clips of some seconds, at several rates."""
    return _declare(options, "features", "animal-sounds", "clips of seconds")


def declare_short(options: Options) -> Comparison:
    """Clips of half a second."""
    return _declare(options, "features_short", "spoken-digits", "clips of half a second")


def _declare(options: Options, name: str, sounds: str, what: str) -> Comparison:
    """All sides read the same files, from the system's file cache."""
    folder = str(options.work / name)
    ours = {"folder": folder, "workers": 1, "check": False}
    theirs = {"folder": folder, "front_end": dataclasses.asdict(FrontEnd())}
    before, sides = [], []
    if options.data is not None:
        args = {
            "data": str(options.data / sounds),
            "out": folder,
        }
        before.append(Side("copies of the files", _SIDES + "copy_sounds", args))
        sides = [
            Side(OURS, _SIDES + "features_ours", ours, cores=1),
            Side(TWO, _SIDES + "features_ours", {**ours, "workers": 2}, cores=2),
            Side(CHECKED, _SIDES + "features_ours", {**ours, "check": True}, cores=1),
            Side(LIBROSA, _SIDES + "features_librosa", theirs, "audio", cores=1),
            Side(TORCHAUDIO, _SIDES + "features_torchaudio", theirs, "audio", cores=1),
        ]
    return Comparison(
        name=name,
        title=f"Files to log-mel patches, {what}",
        sides=tuple(sides),
        ratios=(
            Ratio(f"files to patches, one core: ours / librosa ({what})", OURS, LIBROSA, target=3),
            Ratio(f"files to patches: ours on 2 cores / on 1 ({what})", TWO, OURS, target=1.8),
            Ratio(f"files to patches, one core: ours / torchaudio ({what})", OURS, TORCHAUDIO),
            Ratio(
                f"files to patches, one core: ours with the check / librosa ({what})",
                CHECKED,
                LIBROSA,
            ),
        ),
        rounds=1 if options.quick else 7,
        unit="s of sound/s",
        keys=("rate", "patches"),
        settings={"data": sounds, "files": "all at usual rates"},
        before=tuple(before),
        notes=(
            "Only files at usual sample rates, 8 to 48 kHz.",
            "Ours writes the feature store to disk and reads all patches; the others keep them in "
            "memory. Ours computes the spectrum in float64, the others in float32.",
        ),
        skipped="" if options.data else "needs --data DIR",
    )
