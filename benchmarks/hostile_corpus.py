"""Files that no decoder expects: sounds with broken headers and bodies, traps, and junk.

`write_corpus` makes them, the same ones for the same seed. No sound of others is
used: what is broken was synthesized first. `tests/audio/test_decode_hostile.py` reads a
part of them, `python -m benchmarks.hostile_audio` all.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.hostile_flac import constant_flac, flac_head

RATE = 16_000
# What libsndfile writes, and so reads: (ending, format, subtype).
FORMATS = (
    ("wav", "WAV", "PCM_16"), ("wav", "WAV", "PCM_U8"), ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "FLOAT"), ("wav", "WAV", "DOUBLE"), ("wav", "WAV", "ALAW"),
    ("wav", "WAV", "IMA_ADPCM"), ("wav", "WAV", "MS_ADPCM"), ("wav", "WAV", "GSM610"),
    ("wav", "WAVEX", "PCM_16"), ("wav", "WAV", "MPEG_LAYER_III"), ("rf64", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_16"), ("flac", "FLAC", "PCM_16"), ("flac", "FLAC", "PCM_24"),
    ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"), ("aiff", "AIFF", "FLOAT"), ("aiff", "AIFF", "IMA_ADPCM"),
    ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16"), ("caf", "CAF", "ALAC_16"),
    ("voc", "VOC", "PCM_16"), ("nist", "NIST", "PCM_16"), ("svx", "SVX", "PCM_16"),
    ("paf", "PAF", "PCM_16"), ("sf", "IRCAM", "PCM_16"), ("pvf", "PVF", "PCM_16"),
    ("sds", "SDS", "PCM_16"), ("avr", "AVR", "PCM_16"), ("htk", "HTK", "PCM_16"),
    ("xi", "XI", "DPCM_16"), ("mpc", "MPC2K", "PCM_16"), ("mat", "MAT4", "PCM_16"),
)  # fmt: skip
# Half of the mutated files are of what people have.
COMMON = ("wav", "flac", "ogg", "opus", "mp3", "aiff")
_HEADER = 128
_BOUNDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Bytes = bytearray
Rng = np.random.Generator


@dataclass(frozen=True)
class Trap:
    """A file that was made by hand.

    Attributes:
        name: of the file.
        make: its bytes.
        heavy: True where reading takes more than a second.
        causes: rules, one of which must be told by the check of training data;
            empty where the file is harmless after all.
    """

    name: str
    make: Callable[[], bytes]
    causes: tuple[str, ...] = ()
    heavy: bool = False


def tone(seconds: float = 0.4, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A noisy tone (samples, channels)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 900) * time)
    return sound[:, np.newaxis] + rng.normal(scale=0.02, size=(len(time), channels))


def encoded(format: str, subtype: str, channels: int = 1, seed: int = 0) -> bytes:
    """A tone as a file, the same bytes each time."""
    if (format, subtype) == ("WAV", "MPEG_LAYER_III"):
        # Which libsndfile reads, but does not write.
        content = encoded("MP3", subtype, channels, seed)
        return wav(channels=channels, tag=0x55, bits=0, align=1, data=content)
    file = io.BytesIO()
    rate = 8_000 if subtype == "GSM610" else RATE
    soundfile.write(file, tone(channels=channels, seed=seed), rate, subtype, format=format)
    content = file.getvalue()
    if format == "OGG":
        return _numbered_one(content)
    # When it was written.
    at = content.find(b"PEAK")
    return content if at < 0 else content[: at + 12] + bytes(4) + content[at + 16 :]


def _numbered_one(content: bytes) -> bytes:
    """Give an Ogg stream the number 1 in place of a random one."""
    found = Bytes(content)
    at = -1
    while (at := found.find(b"OggS", at + 1)) >= 0:
        found[at + 14 : at + 18] = b"\1\0\0\0"
    return with_ogg_sums(bytes(found))


def write_corpus(folder: Path, files: int, seed: int, *, heavy: bool = True) -> list[Path]:
    """Write the traps and then mutated files until there are so many.

    Args:
        folder: to write to; a folder for each of two classes is made in it.
        files: in all; at least the traps and the two harmless ones.
        seed: of what is random.
        heavy: also what takes seconds to read.

    Returns:
        The files.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number, label in enumerate(("hum", "tone")):
        (folder / label).mkdir(parents=True, exist_ok=True)
        made.append(folder / label / "harmless.wav")
        made[-1].write_bytes(encoded("WAV", "PCM_16", seed=number + 1))
    wanted = [trap for trap in traps() if heavy or not trap.heavy]
    for number, trap in enumerate(wanted):
        made.append(folder / ("hum", "tone")[number % 2] / trap.name)
        made[-1].write_bytes(trap.make())
    for name, content in mutated(rng, max(files - len(made), 0)):
        made.append(folder / ("hum", "tone")[len(made) % 2] / name)
        made[-1].write_bytes(content)
    return made


def mutated(rng: Rng, count: int) -> Iterator[tuple[str, bytes]]:
    """Sounds that were broken at random: (name, content)."""
    pool = [
        (ending, encoded(format, subtype, channels))
        for ending, format, subtype in FORMATS
        for channels in ((1, 2) if ending in COMMON and subtype != "GSM610" else (1,))
    ]
    common = [item for item in pool if item[0] in COMMON]
    for number in range(count):
        among = common if number % 2 else pool
        ending, content = among[rng.integers(len(among))]
        kinds = [MUTATIONS[i] for i in rng.integers(len(MUTATIONS), size=rng.integers(1, 4))]
        broken = Bytes(content)
        for mutate in kinds:
            broken = mutate(broken, rng)
            if mutate is spliced:
                broken = broken + Bytes(pool[rng.integers(len(pool))][1])[rng.integers(2000) :]
        how = "+".join(kind.__name__ for kind in kinds)
        yield f"{number:05}-{how}.{ending}", bytes(broken)


def flipped_header(content: Bytes, rng: Rng) -> Bytes:
    """Flip a few bits of the header."""
    for place in rng.integers(min(len(content), _HEADER), size=rng.integers(1, 6)):
        content[place] ^= 1 << int(rng.integers(8))
    return content


def extreme_header(content: Bytes, rng: Rng) -> Bytes:
    """Put numbers at the edge of their range into the header."""
    for place in rng.integers(4, min(len(content), _HEADER), size=rng.integers(1, 4)):
        size = int(rng.choice([1, 2, 4]))
        bound = _BOUNDS[rng.integers(len(_BOUNDS))] & (256**size - 1)
        content[place : place + size] = bound.to_bytes(size, ("little", "big")[rng.integers(2)])
    return content


def noisy_body(content: Bytes, rng: Rng) -> Bytes:
    """Overwrite short stretches anywhere with noise."""
    for place in rng.integers(len(content), size=rng.integers(1, 20)):
        noise = rng.bytes(int(rng.integers(1, 9)))
        content[place : place + len(noise)] = noise
    return content


def cut(content: Bytes, rng: Rng) -> Bytes:
    """Cut the end off."""
    return content[: int(rng.integers(1, len(content) + 1))]


def doubled(content: Bytes, rng: Rng) -> Bytes:
    """Repeat a stretch."""
    start, end = sorted(rng.integers(len(content) + 1, size=2))
    return content[:end] + content[start:]


def holed(content: Bytes, rng: Rng) -> Bytes:
    """Leave a stretch out."""
    start, end = sorted(rng.integers(len(content) + 1, size=2))
    return (content[:start] + content[end:]) or content[:1]


def zeroed(content: Bytes, rng: Rng) -> Bytes:
    """Put zeros in place of a stretch, as a bad copy has."""
    start, end = sorted(rng.integers(min(len(content), 4096) + 1, size=2))
    content[start:end] = bytes(end - start)
    return content


def spliced(content: Bytes, rng: Rng) -> Bytes:
    """Keep the beginning; the caller adds the rest of another file."""
    return content[: int(rng.integers(12, max(len(content), 13)))]


MUTATIONS = (
    flipped_header, extreme_header, noisy_body, cut, doubled, holed, zeroed, spliced,
)  # fmt: skip


def traps() -> list[Trap]:
    """Files made by hand to cost time, memory or the process."""
    return [*_wav_traps(), *_float_traps(), *_flac_traps(), *_other_traps(), *_junk()]


def wav(
    rate: int = RATE, channels: int = 1, bits: int = 16, tag: int = 1, align: int | None = None,
    data: bytes = b"\1\0\xff\x7f" * 4000, length: int | None = None, before: bytes = b"",
    riff: int | None = None,
) -> bytes:  # fmt: skip
    """A WAV file whose header says what it is told to."""
    align = channels * bits // 8 & 0xFFFF if align is None else align
    speed = rate * align & 0xFFFFFFFF
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, speed, align, bits)
    length = len(data) if length is None else length
    body = b"WAVE" + before + fmt + struct.pack("<4sI", b"data", length) + data
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def _wav_traps() -> Iterator[Trap]:
    bad = ("unreadable",)
    for rate in (0, 1, 999, 1_000_001, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Trap(f"rate-{rate}.wav", lambda rate=rate: wav(rate=rate), bad)
    for rate in (1_000, 999_983, 1_000_000):
        yield Trap(f"rate-{rate}.wav", lambda rate=rate: wav(rate=rate))
    for channels in (0, 1025, 65535):
        yield Trap(f"channels-{channels}.wav", lambda c=channels: wav(channels=c), bad)
    many = b"\1\0\xff\x7f" * 1024 * 500
    yield Trap("channels-1024.wav", lambda: wav(channels=1024, data=many), ("silent",))
    yield Trap("channels-1024-24.wav", lambda: wav(channels=1024, bits=24, data=many[:3072_000]))
    for bits in (0, 1, 7, 17, 64, 255, 65535):
        yield Trap(f"bits-{bits}.wav", lambda bits=bits: wav(bits=bits))
    for align in (0, 1, 3, 65535):
        yield Trap(f"align-{align}.wav", lambda align=align: wav(align=align))
    for length in (0, 1, 0x7FFFFFFE, 0xFFFFFFFE, 0xFFFFFFFF):
        yield Trap(f"length-{length}.wav", lambda length=length: wav(length=length))
    for size in (0, 4, 0xFFFFFFFF):
        yield Trap(f"riff-{size}.wav", lambda size=size: wav(riff=size))
    for tag in (0, 2, 3, 6, 0x11, 0x31, 0x50, 0x55, 0xFFFE, 0xFFFF):
        yield Trap(f"tag-{tag:#x}.wav", lambda tag=tag: wav(tag=tag))
    empty = b"junk\0\0\0\0"
    yield Trap("chunks-million.wav", lambda: wav(before=empty * 1_000_000))
    yield Trap("chunk-lies.wav", lambda: wav(before=b"LIST\xff\xff\xff\x7f" + bytes(64)), bad)
    yield Trap("no-data.wav", lambda: wav()[:36], bad)
    yield Trap("no-samples.wav", lambda: wav(data=b""), ("empty", "unreadable"))
    yield Trap("one-sample.wav", lambda: wav(data=b"\1\0"), ("too_short",))
    yield Trap("silence-1-hour.wav", lambda: wav(data=bytes(115_200_000)), ("silent",), True)


def _float_traps() -> Iterator[Trap]:
    values = {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf, "1e38": 1e38, "1e-40": 1e-40}
    kinds = (("wav", "WAV", "FLOAT"), ("wav", "WAV", "DOUBLE"), ("aiff", "AIFF", "FLOAT"),
             ("caf", "CAF", "DOUBLE"), ("w64", "W64", "FLOAT"), ("au", "AU", "FLOAT"))  # fmt: skip
    for ending, format, subtype in kinds:
        for name, value in values.items():
            for place in ("first", "last", "all"):

                def make(format=format, subtype=subtype, value=value, place=place):
                    samples = tone(channels=2)
                    where = {"first": 0, "last": -1, "all": slice(None)}[place]
                    samples[where, 1] = value
                    file = io.BytesIO()
                    soundfile.write(file, samples, RATE, subtype, format=format)
                    return file.getvalue()

                causes = () if value == 1e-40 else ("non_finite",)
                yield Trap(f"{name}-{place}-{subtype}-{format}.{ending}", make, causes)
    twice = np.full(4000, 3e38, "<f4").tobytes()
    # Finite each, infinite when two channels are added.
    yield Trap("sum-is-inf.wav", lambda: wav(channels=2, bits=32, tag=3, data=twice))


def _flac_traps() -> Iterator[Trap]:
    hour, long = 3600, ("too_long",)
    silent = [0]
    yield Trap("silence-10-hours.flac", lambda: constant_flac(10 * hour, RATE, values=silent),
               ("silent",), True)  # fmt: skip
    yield Trap("silence-30-hours.flac",
               lambda: constant_flac(30 * hour, RATE, values=silent), long, True)  # fmt: skip
    yield Trap("steps-25-hours-unknown.flac",
               lambda: constant_flac(25 * hour, RATE, total=0), long, True)  # fmt: skip
    yield Trap("bomb-1-MB.flac", lambda: constant_flac(hour, 8_000, frames=75_000), long)
    yield Trap("bomb-1-MB-unknown.flac",
               lambda: constant_flac(hour, 8_000, frames=75_000, total=0), long, True)  # fmt: skip
    yield Trap("bomb-1-MB-lies.flac",
               lambda: constant_flac(hour, 8_000, frames=75_000, total=8_000), ())  # fmt: skip
    yield Trap("bomb-8-channels-655-kHz.flac",
               lambda: constant_flac(hour, 655_350, channels=8, frames=30_000, total=0),
               ("harmful", "too_long"), True)  # fmt: skip
    for total in (0, 1, (1 << 36) - 1):
        yield Trap(f"total-{total}.flac", lambda total=total: constant_flac(1, RATE, total=total))
    for size in (0, 34, 0xFFFFFF):
        for kind in (0, 1, 3, 4, 5, 6, 127):
            block = bytes([kind]) + size.to_bytes(3, "big") + bytes(2000)
            content = flac_head(RATE, 1, 1000, block)
            yield Trap(f"metadata-{kind}-{size}.flac", lambda content=content: content)
    yield Trap("no-frames.flac", lambda: flac_head(RATE, 1, 1000), ("empty", "unreadable"))


def _other_traps() -> Iterator[Trap]:
    ogg, opus = encoded("OGG", "VORBIS"), encoded("OGG", "OPUS")
    mp3, aiff = encoded("MP3", "MPEG_LAYER_III"), encoded("AIFF", "PCM_16")
    for name, content in (("vorbis.ogg", ogg), ("opus.opus", opus)):
        pages = [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]
        last = pages[-1]
        for value in (0, (1 << 63) - 1, (1 << 64) - 1, 1 << 40):
            granule = value.to_bytes(8, "little")
            changed = content[: last + 6] + granule + content[last + 14 :]
            yield Trap(f"granule-{value}-{name}", lambda changed=changed: with_ogg_sums(changed))
        chained = content * 50
        yield Trap(f"chained-{name}", lambda chained=chained: chained)
        heads = content[: pages[2] if len(pages) > 2 else pages[-1]]
        yield Trap(f"heads-only-{name}", lambda heads=heads: heads * 200)
    tag = b"ID3\4\0\0\x7f\x7f\x7f\x7f"
    yield Trap("id3-lies.mp3", lambda: tag + mp3)
    yield Trap("id3-nested.mp3", lambda: (b"ID3\4\0\0\0\0\0\x0a" + bytes(10)) * 20_000 + mp3)
    yield Trap("sync-only.mp3", lambda: b"\xff\xfb\x90\x64" * 250_000)
    yield Trap("sync-bytes.mp3", lambda: b"\xff" * 1_000_000)
    yield Trap("frames-of-zeros.mp3", lambda: (b"\xff\xfb\x90\x64" + bytes(413)) * 4000)
    yield Trap("noise.mp3", lambda: b"ID3" + np.random.default_rng(0).bytes(1_000_000))
    at = aiff.index(b"COMM") + 8
    for name, rate in {"inf": "7fff8000000000000000", "nan": "7fffc000000000000000",
                       "huge": "43ff8000000000000000", "tiny": "00018000000000000000",
                       "minus": "c00cfa00000000000000", "zero": "0" * 20}.items():  # fmt: skip
        changed = aiff[: at + 8] + bytes.fromhex(rate) + aiff[at + 18 :]
        yield Trap(f"rate-{name}.aiff", lambda changed=changed: changed, ("unreadable",))
    for name, place, value in (("frames", at + 2, "ffffffff"), ("channels", at, "ffff"),
                               ("channels-0", at, "0000"), ("bits", at + 6, "ffff")):  # fmt: skip
        changed = aiff[:place] + bytes.fromhex(value) + aiff[place + len(value) // 2 :]
        yield Trap(f"{name}.aiff", lambda changed=changed: changed)
    at = aiff.index(b"SSND") + 8
    yield Trap("offset.aiff", lambda: aiff[:at] + b"\xff\xff\xff\xf0" + aiff[at + 4 :])


def _junk() -> Iterator[Trap]:
    bad = ("unreadable",)
    yield Trap("nothing.wav", lambda: b"", ("empty",))
    yield Trap("byte.flac", lambda: b"f", bad)
    yield Trap("zeros.ogg", lambda: bytes(5000), bad)
    yield Trap("page.mp3", lambda: b"<!DOCTYPE html><html>404" + b" " * 600, bad)
    yield Trap("text.wav", lambda: b"path,label\na,b\n" * 50, bad)
    yield Trap("zip.wav", lambda: b"PK\3\4" + np.random.default_rng(1).bytes(5000), bad)
    yield Trap("png.mp3", lambda: b"\x89PNG\r\n\x1a\n" + np.random.default_rng(2).bytes(5000))
    yield Trap("mp4.m4a", lambda: b"\0\0\0\x20ftypM4A " + bytes(5000), bad)
    yield Trap("noise.raw.wav", lambda: np.random.default_rng(3).bytes(100_000), bad)
    for ending in ("gsm", "vox", "au", "snd", "raw", "ogg", "flac", "aiff", "caf", "w64"):
        noise = np.random.default_rng(4).bytes(20_000)
        yield Trap(f"noise.{ending}", lambda noise=noise: noise)


def with_ogg_sums(content: bytes) -> bytes:
    """Put right the checksums of all pages, without which a page would be passed over."""
    found = Bytes(content)
    at = 0
    while (at := found.find(b"OggS", at)) >= 0 and at + 27 <= len(found):
        segments = found[at + 27 : at + 27 + found[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        found[at + 22 : at + 26] = bytes(4)
        found[at + 22 : at + 26] = _ogg_sum(found[at:end]).to_bytes(4, "little")
        at = max(end, at + 1)
    return bytes(found)


def _ogg_sum(page: bytes) -> int:
    # RFC 3533, section 6: the polynomial 0x04c11db7, nothing inverted or reflected.
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc
