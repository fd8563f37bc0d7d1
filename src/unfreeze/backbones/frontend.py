"""How a waveform becomes the patches that a backbone reads.

Plain data and integer arithmetic; the spectrum itself is computed in
`unfreeze.audio`. All lengths are in samples or frames, never in seconds, so
every place that needs them rounds alike.
"""

from dataclasses import dataclass, replace


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

    def slowed(self, factor: float) -> "FrontEnd":
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
