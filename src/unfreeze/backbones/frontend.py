"""How a waveform becomes the patches that a backbone reads.

Plain data and integer arithmetic; the spectrum itself is computed in
`unfreeze.audio`. All lengths are in samples or frames, never in seconds, so
every place that needs them rounds alike.

There are two kinds. `FrontEnd`: frames that depend on their own samples alone, and patches
that are windows over them (YAMNet). `WholeWindows`: each patch is computed as a whole; such a
patch counts as one frame that is as long as a patch. So all that stores, streams and cuts
frames serves both. Of the second kind are `MelWindows`, as the samples of each are scaled by
their own range (BirdNET); `LogMelWindows`, as the edges of each are mirrored (EfficientAT);
`SampleWindows`, the samples themselves; `NetworkOutputs`, what a frozen network in a file of
its own makes of them; and `EncodedWindows`, what a model makes of another front end's patches.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

#: What the numbers of a patch are: logarithms of mel magnitudes, powers of them, samples, or
#: whatever a network gives.
LOGS, POWERS, SAMPLES, NUMBERS = "logarithms", "powers", "samples", "numbers"


@dataclass(frozen=True)
class LogScale:
    """How a value of a patch that holds logarithms comes from a mel magnitude.

    It is (ln(magnitude ** exponent + `log_offset`) + shift) / divisor.

    Attributes:
        exponent: 1 for magnitudes, 2 for powers.
        shift: added to the logarithm.
        divisor: of the sum.
    """

    exponent: float = 1.0
    shift: float = 0.0
    divisor: float = 1.0

    @property
    def unit(self) -> float:
        """By how much a value grows where the magnitude grows by a factor of e."""
        return self.exponent / self.divisor


@dataclass(frozen=True)
class FrontEnd:
    """Settings of the log-mel front end; the defaults are YAMNet's.

    Source of the defaults: tensorflow/models, research/audioset/yamnet,
    params.py (Apache 2.0).

    Attributes:
        sample_rate: samples per second of the waveform.
        window: samples in one periodic Hann window.
        hop: samples from one frame to the next.
        fft: points of the Fourier transform; at least `window`.
        bands: mel bands (HTK scale).
        low_hz: lower edge of the lowest band, hertz.
        high_hz: upper edge of the highest band, hertz.
        log_offset: added to the mel magnitudes before the logarithm.
        patch_frames: frames in one patch.
        patch_hop: frames from one patch to the next.
        min_samples: shorter waveforms are padded with zeros to this.
        slow_down: how many times slower the network hears the sound: rates and edges are
            so many times those that it was trained with.
        channel: of recordings with several, the one to take, counted from 1; 0 mixes them.
    """

    sample_rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 512
    bands: int = 64
    low_hz: float = 125.0
    high_hz: float = 7_500.0
    log_offset: float = 0.001
    patch_frames: int = 96
    patch_hop: int = 48
    min_samples: int = 15_600
    slow_down: float = 1.0
    channel: int = 0

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch as the network reads it; time comes first, then bands."""
        return (self.patch_frames, self.bands)

    @property
    def frame_values(self) -> int:
        """Numbers in one frame."""
        return self.bands

    @property
    def patch_samples(self) -> int:
        """Samples that a patch stands for: from its start to that of the next without overlap."""
        return self.patch_frames * self.hop

    @property
    def patch_seconds(self) -> float:
        """The same in seconds."""
        return self.patch_samples / self.sample_rate

    @property
    def step(self) -> int:
        """Samples of the smallest hop from patch to patch; hops are multiples of it."""
        return self.hop

    @property
    def steps(self) -> int:
        """Steps from one patch to the next."""
        return self.patch_hop

    def with_steps(self, steps: int) -> Self:
        """The same with patches so many steps apart."""
        return replace(self, patch_hop=steps)

    @property
    def powers(self) -> tuple[float, ...]:
        """Of each spectrogram in a patch, the exponent of its squared mel values.

        Empty where a patch holds anything else.
        """
        return ()

    @property
    def holds(self) -> str:
        """What the numbers of a patch are: `LOGS`, `POWERS`, `SAMPLES` or `NUMBERS`."""
        return LOGS

    @property
    def logs(self) -> LogScale:
        """How the logarithms of a patch that holds such come from magnitudes."""
        return LogScale()

    @property
    def has_spectrograms(self) -> bool:
        """Whether a patch has an axis of time and one of bands, so that it can be augmented."""
        return self.holds in (LOGS, POWERS)

    @property
    def picture(self) -> "FrontEnd":
        """Settings of a log-mel spectrogram to look at."""
        return self

    @property
    def tolerance(self) -> float:
        """The largest difference between a patch that is computed in the graph and outside."""
        return 1e-4

    @property
    def slack(self) -> float:
        """How many times more than those of YAMNet's classifiers an export's scores may differ."""
        return 1.0

    def slowed(self, factor: float) -> Self:
        """The same network, for sound that it hears `factor` times slower, and lower.

        Its samples are the same ones, but more of them make a second; so patches last a
        shorter time, and all else follows from the rate.
        """
        return replace(
            self,
            sample_rate=round(self.sample_rate * factor),
            low_hz=self.low_hz * factor,
            high_hz=self.high_hz * factor,
            slow_down=self.slow_down * factor,
        )

    def padded_samples(self, samples: int) -> int:
        """Length after padding: `min_samples`, then whole patch hops.

        The reference pads a waveform at its end until the last patch is full,
        so no sample is dropped.

        Args:
            samples: length of the waveform, 0 or more.

        Returns:
            The padded length in samples, at least `samples`.
        """
        extra = max(samples - self.min_samples, 0)
        hop = self.patch_hop * self.hop
        return self.min_samples + -(-extra // hop) * hop

    def frames(self, samples: int) -> int:
        """Number of frames in the spectrum of a waveform of `samples`, after padding."""
        return (self.padded_samples(samples) - self.window) // self.hop + 1

    def patches(self, samples: int) -> int:
        """Number of patches in a waveform of `samples`, after padding; at least 1."""
        return (self.frames(samples) - self.patch_frames) // self.patch_hop + 1

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON; `front_end_from` reads them."""
        return asdict(self)

    @property
    def identity(self) -> dict[str, Any]:
        """The same without what may differ from machine to machine: where files lie."""
        return self.as_plain()


@dataclass(frozen=True)
class WholeWindows(FrontEnd):
    """Settings of a front end that computes each patch from its own samples, as a whole.

    `window` is the length of a patch, `hop` the distance of patches, and a patch is one
    frame. `fft` and `log_offset` have no meaning here.

    Attributes:
        smallest_hop: samples; the hop can be set to multiples of it.
    """

    smallest_hop: int = 1

    @property
    def patch_samples(self) -> int:
        """Samples in a patch."""
        return self.window

    @property
    def step(self) -> int:
        """Samples of the smallest hop."""
        return self.smallest_hop

    @property
    def steps(self) -> int:
        """Steps from one patch to the next."""
        return self.hop // self.smallest_hop

    def with_steps(self, steps: int) -> Self:
        """The same with patches so many steps apart."""
        return replace(self, hop=steps * self.smallest_hop)

    @property
    def picture(self) -> FrontEnd:
        """A log-mel spectrogram of the same range of frequencies, every 10 ms."""
        hop = max(round(self.sample_rate / self.slow_down / 100), 1)
        return FrontEnd(
            sample_rate=self.sample_rate,
            window=2 * hop,
            hop=hop,
            fft=2048,
            low_hz=max(self.low_hz, 100.0 * self.slow_down),
            high_hz=self.high_hz,
            min_samples=2 * hop,
            patch_frames=1,
            patch_hop=1,
            slow_down=self.slow_down,
            channel=self.channel,
        )


@dataclass(frozen=True)
class Mel:
    """One of the spectrograms of `MelWindows`.

    Attributes:
        fft: samples in one periodic Hann window, and points of its Fourier transform.
        hop: samples from one window to the next.
        low_hz: lower edge of the lowest band, as the network hears it, hertz.
        high_hz: upper edge of the highest band, likewise.
        power: exponent of the squared mel values.
    """

    fft: int
    hop: int
    low_hz: float
    high_hz: float
    power: float


@dataclass(frozen=True)
class MelWindows(WholeWindows):
    """Settings of patches that are mel spectrograms of samples scaled by their own range.

    The samples of a patch are scaled so that the smallest is -1 and the largest 1. Then
    there is a spectrogram for each of `mels`: the real part of the transform of each window,
    summed into mel bands, squared, raised to a power, and with the highest band first.
    (BirdNET 2.4's graph does so; that the imaginary part is dropped is as published.)

    Attributes:
        mels: the spectrograms; all have the same number of windows in a patch.
    """

    mels: tuple[Mel, ...] = ()

    @property
    def columns(self) -> int:
        """Windows of each spectrogram in a patch."""
        first = self.mels[0]
        return (self.window - first.fft) // first.hop + 1

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(columns, bands, spectrograms)."""
        return (self.columns, self.bands, len(self.mels))

    @property
    def frame_values(self) -> int:
        """Numbers in one patch."""
        return self.columns * self.bands * len(self.mels)

    @property
    def powers(self) -> tuple[float, ...]:
        """Of each spectrogram in a patch, the exponent of its squared mel values."""
        return tuple(mel.power for mel in self.mels)

    @property
    def holds(self) -> str:
        """Powers of mel magnitudes."""
        return POWERS

    @property
    def slack(self) -> float:
        """OpenVINO multiplies with reciprocals where others divide, which shows in silence."""
        return 30.0

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON; `front_end_from` reads them."""
        return {**asdict(self), "mels": [asdict(mel) for mel in self.mels]}

    @property
    def tolerance(self) -> float:
        """The exponents make much of what is nearly 0: 1e-9, squared and to the 0.2, is 2.5e-4."""
        return 1e-3


@dataclass(frozen=True)
class LogMelWindows(WholeWindows):
    """Settings of patches that are log-mel spectrograms of a window, mirrored at its edges.

    The samples of a patch are emphasized, y[n] = x[n + 1] - preemphasis * x[n], and mirrored
    at both ends, so that a frame can be centred on each `frame_hop`-th sample. Its powers are
    summed into mel bands (HTK scale), and a value is (ln(sum + log_offset) + shift) / divisor.

    Attributes:
        frame: samples in one symmetric Hann window; at most `fft`.
        frame_hop: samples from one frame to the next.
        preemphasis: as above.
        shift: as above.
        divisor: as above.
    """

    frame: int = 800
    frame_hop: int = 320
    preemphasis: float = 0.97
    shift: float = 0.0
    divisor: float = 1.0

    @property
    def columns(self) -> int:
        """Frames in a patch."""
        return (self.window - 1) // self.frame_hop + 1

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(columns, bands)."""
        return (self.columns, self.bands)

    @property
    def frame_values(self) -> int:
        """Numbers in one patch."""
        return self.columns * self.bands

    @property
    def logs(self) -> LogScale:
        """Logarithms of powers, shifted and scaled."""
        return LogScale(2.0, self.shift, self.divisor)


@dataclass(frozen=True)
class SampleWindows(WholeWindows):
    """Settings of patches that are samples, as they are."""

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(samples,)."""
        return (self.window,)

    @property
    def frame_values(self) -> int:
        """Samples in one patch."""
        return self.window

    @property
    def holds(self) -> str:
        """Samples."""
        return SAMPLES


@dataclass(frozen=True)
class NetworkFile:
    """A published network in a file of its own, and what is read of it.

    Attributes:
        name: of the backbone.
        file: where it was when it was first read.
        sha256: of the file's bytes.
        outputs: names of the outputs, or of other tensors, that are read.
        sizes: numbers of each of these, for one window.
    """

    name: str
    file: str
    sha256: str
    outputs: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def env(self) -> str:
        """Environment variable for the path of the file, where it was moved."""
        return f"UNFREEZE_{self.name.upper().replace('-', '_')}_WEIGHTS"


@dataclass(frozen=True)
class NetworkOutputs(SampleWindows):
    """Settings of patches that are what a frozen network makes of the samples of a window.

    Attributes:
        network: the network. (Without one these are no settings yet.)
    """

    network: NetworkFile = NetworkFile("", "", "", (), ())

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(numbers,): those of all outputs, one output after the other."""
        return (sum(self.network.sizes),)

    @property
    def frame_values(self) -> int:
        """Numbers in one patch."""
        return sum(self.network.sizes)

    @property
    def holds(self) -> str:
        """The network's numbers."""
        return NUMBERS

    @property
    def identity(self) -> dict[str, Any]:
        """Not where the network's file lies, nor its name."""
        plain = self.as_plain()
        kept = ("sha256", "outputs", "sizes")
        return {**plain, "network": {name: plain["network"][name] for name in kept}}

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON; `front_end_from` reads them."""
        network = asdict(self.network)
        listed = {name: list(network[name]) for name in ("outputs", "sizes")}
        return {**asdict(self), "network": {**network, **listed}}


@dataclass(frozen=True)
class EncodedWindows(SampleWindows):
    """Settings of patches that are the vectors a model makes of another front end's patches.

    They live as long as the model that is in memory, so they are not kept with a classifier.

    Attributes:
        inner: whose patches the model reads.
        encode: patches to vectors, (patches, numbers) float32.
        numbers: in a vector.
        model: a digest of the model.
    """

    inner: FrontEnd = field(kw_only=True)
    encode: Callable[[np.ndarray], np.ndarray] = field(kw_only=True)
    numbers: int = field(kw_only=True)
    model: str = field(kw_only=True)

    @classmethod
    def of(
        cls, inner: FrontEnd, encode: Callable[[np.ndarray], np.ndarray], numbers: int, model: str
    ) -> "EncodedWindows":
        """Settings of the vectors that a model makes of the patches of `inner`.

        Args:
            inner: whose patches it reads.
            encode: patches to vectors, (patches, numbers) float32.
            numbers: in a vector.
            model: a digest of the model.
        """
        hop = inner.steps * inner.step
        return cls(
            sample_rate=inner.sample_rate,
            window=inner.patch_samples,
            hop=hop,
            min_samples=inner.min_samples,
            patch_frames=1,
            patch_hop=1,
            slow_down=inner.slow_down,
            channel=inner.channel,
            smallest_hop=hop,
            inner=inner,
            encode=encode,
            numbers=numbers,
            model=model,
        )

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(numbers,)."""
        return (self.numbers,)

    @property
    def frame_values(self) -> int:
        """Numbers in one patch."""
        return self.numbers

    @property
    def holds(self) -> str:
        """The model's numbers."""
        return NUMBERS

    def patches(self, samples: int) -> int:
        """As many as the inner front end makes of a waveform of `samples`."""
        return self.inner.patches(samples)

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors of a waveform depend on."""
        return {"inner": self.inner.identity, "model": self.model, "numbers": self.numbers}


def front_end_from(values: Mapping[str, Any]) -> FrontEnd:
    """Settings from the plain values that `as_plain` gives.

    Raises:
        TypeError: they are not settings of a front end.
    """
    if "mels" in values:
        mels = tuple(Mel(**mel) for mel in values["mels"])
        return MelWindows(**{**values, "mels": mels})
    if "network" in values:
        given = dict(values["network"])
        network = NetworkFile(
            **{**given, "outputs": tuple(given["outputs"]), "sizes": tuple(given["sizes"])}
        )
        return NetworkOutputs(**{**values, "network": network})
    if "preemphasis" in values:
        return LogMelWindows(**values)
    return SampleWindows(**values) if "smallest_hop" in values else FrontEnd(**values)
