"""Sound from a microphone, through the library `sounddevice` (PortAudio)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from unfreeze.detection.inbox import Inbox
from unfreeze.detection.pipe import resampler
from unfreeze.errors import UnfreezeError

# Seconds that the sound card hands over at once.
_BLOCK = 0.05


@contextmanager
def microphone(device: str | None, sample_rate: int, inbox: Inbox) -> Iterator[str]:
    """Put what a microphone hears into an inbox while the block runs.

    Args:
        device: name, part of a name, or number; None takes the system's default.
        sample_rate: hertz of the samples that are put.
        inbox: where to.

    Yields:
        The device's name.

    Raises:
        UnfreezeError: the library or such a device is missing, or it cannot be
            opened; names the cure, and the devices that there are.
    """
    sounddevice = _library()
    wanted: Any = int(device) if device is not None and device.isdecimal() else device
    try:
        about = sounddevice.query_devices(wanted, "input")
        rate = _rate(sounddevice, wanted, sample_rate, int(about["default_samplerate"]))
        resample = resampler(rate, sample_rate)

        def hear(block: np.ndarray, count: int, time: Any, status: Any) -> None:
            inbox.put(resample(block[:, 0].copy(), False))

        stream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(rate * _BLOCK),
            device=wanted,
            channels=1,
            dtype="float32",
            callback=hear,
            finished_callback=inbox.close,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        which = "no microphone was found" if device is None else f"no microphone {device!r}"
        raise UnfreezeError(f"{which}: {error}. {_devices(sounddevice)}") from None
    with stream:
        yield str(about["name"])


def _library() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise UnfreezeError(
            'a microphone needs the library sounddevice: pip install "unfreeze[live]". '
            "Sound from elsewhere can be piped in: ... | unfreeze listen RUN -"
        ) from None
    except OSError as error:
        raise UnfreezeError(
            f"sounddevice finds no PortAudio ({error}): install it, on Debian and Ubuntu with "
            f"apt install libportaudio2"
        ) from None
    return sounddevice


def _rate(sounddevice: Any, device: Any, wanted: int, default: int) -> int:
    """The model's own rate where the device can give it, else the device's."""
    try:
        sounddevice.check_input_settings(
            device=device, channels=1, dtype="float32", samplerate=wanted
        )
    except (sounddevice.PortAudioError, ValueError):
        return default
    return wanted


def _devices(sounddevice: Any) -> str:
    inputs = [
        f"{number} {about['name']}"
        for number, about in enumerate(sounddevice.query_devices())
        if about["max_input_channels"] > 0
    ]
    if not inputs:
        return "This machine has no sound input; sound can be piped in: ... | unfreeze listen RUN -"
    return f"There are: {', '.join(inputs)} (give a name or number with --device)"
