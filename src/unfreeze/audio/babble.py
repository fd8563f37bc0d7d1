"""Babble: computed sound that is made like speech, without words.

A source goes through the resonances of a mouth that moves: a buzz at the pitch of a voice and
noise of breath through five formants (G. Fant, "Acoustic Theory of Speech Production", 1960),
hiss beside them as D. Klatt's synthesizer has it ("Software for a cascade/parallel formant
synthesizer", JASA 67, 1980). Syllables of a consonant and a vowel make phrases, in which pitch
falls; each sound has another speaker, tempo and room. YAMNet gives it 0.8 for "Speech" in the
mean, and real speech 0.97 and more; steady vowels of random resonances had 0.28.
"""

from dataclasses import dataclass, fields

import numpy as np
import scipy.signal

# Samples in a second; of one step of the mouth, 5 ms; of a window of the spectrum.
_RATE, _STEP, _WINDOW = 16_000, 80, 256
# Formants of American English vowels of men, Hz (Peterson and Barney, JASA 24, 1952).
_VOWELS = np.array(
    [
        (270.0, 2290.0, 3010.0),
        (390.0, 1990.0, 2550.0),
        (530.0, 1840.0, 2480.0),
        (660.0, 1720.0, 2410.0),
        (730.0, 1090.0, 2440.0),
        (570.0, 840.0, 2410.0),
        (440.0, 1020.0, 2240.0),
        (300.0, 870.0, 2240.0),
        (640.0, 1190.0, 2390.0),
        (490.0, 1350.0, 1690.0),
    ]
)
# Where a consonant is made: lips, teeth, palate. The second formant there, and its hiss, Hz.
_LOCI = (900.0, 1700.0, 2300.0)
_HISSES = ((1200.0, 7000.0), (3800.0, 7800.0), (2000.0, 5500.0))
# Bandwidths of the five formants, and the places of those that do not move.
_WIDTHS, _HIGHER = (70.0, 100.0, 150.0, 250.0, 300.0), (3500.0, 4500.0)
# How long formants, pitch and loudness take to change, in steps to each side.
_GLIDES = {"formants": 6, "pitch": 8, "voice": 3, "breath": 3, "hiss": 2, "nasal": 3}

_Rng = np.random.Generator


@dataclass(eq=False)
class _Mouth:
    """What a mouth does in each step.

    Attributes:
        formants: (steps, 3) the lowest three, Hz.
        pitch: (steps,) of the voice, Hz.
        voice: (steps,) loudness of the buzz.
        breath: (steps,) of noise through the formants.
        hiss: (steps,) of noise beside them.
        band: (steps, 2) where this noise is, Hz.
        nasal: (steps,) 1 where sound goes through the nose, which widens formants.
    """

    formants: np.ndarray
    pitch: np.ndarray
    voice: np.ndarray
    breath: np.ndarray
    hiss: np.ndarray
    band: np.ndarray
    nasal: np.ndarray


def make_babble(samples: int, rng: _Rng) -> np.ndarray:
    """Make babble of one speaker.

    Args:
        samples: length, at 16 kHz.
        rng: of everything that is drawn.

    Returns:
        (samples,) float64, of any level; silent between phrases.
    """
    # From a man's mouth to a child's; the pitch goes with it.
    size = rng.uniform(0.95, 1.3)
    pitch = rng.uniform(85, 140) * 2 ** (rng.uniform(0, 1.6) * (size - 0.95) / 0.35)
    # Whole steps, and enough for a window.
    steps = max(-(-samples // _STEP), _WINDOW // _STEP + 1)
    mouth = _Speaker(steps, pitch, rng).spoken()
    for name, glide in _GLIDES.items():
        setattr(mouth, name, _smooth(getattr(mouth, name), glide))
    mouth.formants *= size
    mouth.band *= size
    sound = _sounded(mouth, size, steps * _STEP, rng)[:samples]
    return _in_a_room(sound, rng) if rng.uniform() < 0.7 else sound


class _Speaker:
    """Says one phrase after the other.

    Args:
        steps: length.
        pitch: of the voice, Hz.
        rng: of what is said.
    """

    def __init__(self, steps: int, pitch: float, rng: _Rng) -> None:
        self._steps, self._pitch, self._rng = steps, pitch, rng
        self._tempo = rng.uniform(0.75, 1.35)
        self._at = int(rng.exponential(0.15) * _RATE / _STEP)
        self._mouth = _Mouth(
            formants=np.tile(_VOWELS[8], (steps, 1)),
            pitch=np.full(steps, pitch),
            voice=np.zeros(steps),
            breath=np.zeros(steps),
            hiss=np.zeros(steps),
            band=np.tile([3000.0, 6000.0], (steps, 1)),
            nasal=np.zeros(steps),
        )

    def spoken(self) -> _Mouth:
        """Speak to the end."""
        rng = self._rng
        while self._at < self._steps:
            begin, syllables = self._at, int(rng.integers(1, 10))
            for _ in range(syllables):
                self._syllable()
            self._intone(begin, min(self._at, self._steps), syllables)
            self._at += int((rng.exponential(0.3) + rng.uniform(0.05, 0.15)) * _RATE / _STEP)
        return self._mouth

    def _syllable(self) -> None:
        rng = self._rng
        vowel = _VOWELS[rng.integers(len(_VOWELS))] * rng.normal(1, 0.04, 3)
        stress = rng.uniform(0.4, 1)
        self._consonant(int(rng.integers(7)), vowel)
        self._say(rng.uniform(60, 200) + 30 * stress, vowel, voice=stress)
        if rng.uniform() < 0.4:
            self._consonant(int(rng.integers(5)), vowel)

    def _consonant(self, manner: int, vowel: np.ndarray) -> None:
        """Two of seven are plosives; then fricatives, nasals, glides, h, and none."""
        rng = self._rng
        place = int(rng.integers(len(_LOCI)))
        closed = np.array([270, _LOCI[place], 2500]) * rng.normal(1, 0.05, 3)
        low, high = _HISSES[place]
        voiced = rng.uniform() < 0.5
        if manner < 2:
            self._say(rng.uniform(40, 80), closed, voice=0.04 * voiced)
            burst = rng.uniform(0.14, 0.35)
            self._say(rng.uniform(8, 20), closed, hiss=burst, band=(0.7 * low, high))
            if not voiced:
                self._say(rng.uniform(20, 60), 0.6 * closed + 0.4 * vowel, breath=0.25)
        elif manner == 2:
            hiss = rng.uniform(0.1, 0.5)
            self._say(
                rng.uniform(60, 140), closed, voice=0.15 * voiced, hiss=hiss, band=(low, high)
            )
        elif manner == 3:
            self._say(rng.uniform(50, 90), closed, voice=0.4, nasal=1.0)
        elif manner == 4:
            glide = np.array([330, rng.choice([700, 1200, 2200]), rng.choice([1700, 2500])])
            self._say(rng.uniform(40, 80), glide, voice=0.6)
        elif manner == 5:
            self._say(rng.uniform(40, 80), vowel, breath=0.25)

    def _say(
        self,
        milliseconds: float,
        formants: np.ndarray,
        band: tuple[float, float] | None = None,
        **loudness: float,
    ) -> None:
        """Hold the mouth for a while; what is not given is silent."""
        count = max(round(milliseconds * _RATE / 1000 / _STEP / self._tempo), 1)
        where = slice(self._at, self._at + count)
        self._mouth.formants[where] = formants
        if band is not None:
            self._mouth.band[where] = band
        for name, value in loudness.items():
            getattr(self._mouth, name)[where] = value
        self._at += count

    def _intone(self, begin: int, end: int, syllables: int) -> None:
        """The pitch of a phrase falls, and turns with each syllable."""
        rng, count = self._rng, end - begin
        fall = np.linspace(rng.uniform(1.0, 1.3), rng.uniform(0.75, 0.95), count)
        turns = rng.normal(0, 0.12, syllables + 2)
        turned = np.interp(np.arange(count), np.linspace(0, count, syllables + 2), turns)
        self._mouth.pitch[begin:end] = self._pitch * fall * 2**turned


def _smooth(track: np.ndarray, glide: int) -> np.ndarray:
    """A track without jumps: (steps,) or (steps, n)."""
    weights = np.hanning(2 * glide + 3)[1:-1]
    padded = np.pad(track, [(glide, glide)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    smooth: np.ndarray = np.apply_along_axis(
        np.convolve, 0, padded, weights / weights.sum(), mode="valid"
    )
    return smooth


def _sounded(mouth: _Mouth, size: float, samples: int, rng: _Rng) -> np.ndarray:
    """(samples,) what the movements of a mouth of that size sound like."""
    buzz = _spectra(_buzz(mouth.pitch, samples, rng))
    noise = _spectra(rng.normal(size=samples))
    at = np.minimum(np.arange(buzz.shape[1]), len(mouth.voice) - 1)
    now = _Mouth(**{field.name: getattr(mouth, field.name)[at] for field in fields(_Mouth)})
    hertz = np.fft.rfftfreq(_WINDOW, 1 / _RATE)[:, None] + 1e-3
    through = np.ones((len(hertz), len(at)))
    higher = (np.full(len(at), place * size) for place in _HIGHER)
    for centre, width in zip((*now.formants.T, *higher), _WIDTHS, strict=True):
        wide = width * (1 + now.nasal)
        through *= centre**2 / np.hypot(centre**2 - hertz**2, wide * hertz)
    # How fast the buzz of this voice falls with frequency.
    through /= (1 + hertz / rng.uniform(250, 900)) ** rng.uniform(0.8, 1.3)
    low, high = now.band.T
    beside = 1 / (1 + (low / hertz) ** 6) / (1 + (hertz / high) ** 6)
    spoken = through * (buzz * now.voice + noise * (0.02 * now.voice + 0.3 * now.breath))
    _, sound = scipy.signal.istft(
        spoken + 0.5 * beside * noise * now.hiss, _RATE, nperseg=_WINDOW, noverlap=_WINDOW - _STEP
    )
    return np.asarray(sound[:samples])


def _spectra(sound: np.ndarray) -> np.ndarray:
    """(frequencies, steps) of a sound's windows."""
    overlap = _WINDOW - _STEP
    return np.asarray(scipy.signal.stft(sound, _RATE, nperseg=_WINDOW, noverlap=overlap)[2])


def _buzz(pitch: np.ndarray, samples: int, rng: _Rng) -> np.ndarray:
    """(samples,) a pulse for each period of a voice; no two are quite alike."""
    sample = np.arange(samples)
    turns = np.arange(0, samples + 400, 400)
    shaking = np.interp(sample, turns, rng.normal(size=len(turns)))
    hertz = np.interp(sample, np.arange(len(pitch)) * _STEP, pitch) * (1 + 0.01 * shaking)
    pulses = np.zeros(samples)
    at = np.flatnonzero(np.diff(np.floor(np.cumsum(hertz) / _RATE))) + 1
    pulses[at] = rng.normal(1, 0.05, len(at)) * np.sqrt(_RATE / hertz[at])
    return pulses


def _in_a_room(sound: np.ndarray, rng: _Rng) -> np.ndarray:
    """The sound with an echo that fades within half a second."""
    length = int(rng.uniform(0.05, 0.5) * _RATE)
    tail = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length)
    echo = scipy.signal.fftconvolve(sound, tail / np.linalg.norm(tail))[: len(sound)]
    return np.asarray(sound + rng.uniform(0.1, 0.6) * echo)
