"""Names files by their first bytes: sound, sound in a foreign format, or no sound at all.

The name of a file says what somebody believed. Downloads bring web pages that are named
`.wav`, and telephones MPEG-4 that is named `.mp3`; so the content decides, and a refusal
says what the file is and what to do with it. Formats that libsndfile does not know but
ffmpeg does have the name of ffmpeg's reader here (`unfreeze.audio.ffmpeg_reader`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

# Bytes of a file's head that the functions here look at.
HEAD_BYTES = 4096

# Endings of what libsndfile reads with a header (it needs no more than that).
_ENDINGS = """
.wav .wave .wavex .bwf .rf64 .bw64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mp1 .mpga .aif .aiff
.aifc .au .snd .caf .voc .sph .nist .ircam .sf .svx .8svx .iff .paf .fap .pvf .xi .htk
.sds .avr .sd2 .wve
"""
READABLE = frozenset(_ENDINGS.split())

_WILDLIFE = "convert it with Kaleidoscope of Wildlife Acoustics"
_FFMPEG = "convert it first (ffmpeg -i FILE FILE.wav)"

# Recordings for a user, but libsndfile has no decoder for them.
UNREADABLE = {
    **dict.fromkeys((".m4a", ".m4p", ".m4r", ".alac"), "AAC or ALAC in MP4"),
    ".m4b": "AAC in MP4",
    ".mp4": "MP4",
    ".aac": "AAC",
    ".wma": "Windows Media Audio",
    ".amr": "AMR",
    ".awb": "AMR",
    **dict.fromkeys((".3gp", ".3g2", ".3ga"), "3GP"),
    **dict.fromkeys((".webm", ".weba"), "WebM"),
    ".mka": "Matroska",
    ".ac3": "AC-3",
    ".eac3": "AC-3",
    ".dts": "DTS",
    ".ape": "Monkey's Audio",
    ".wv": "WavPack",
    ".tta": "True Audio",
    ".tak": "TAK",
    ".mpc": "Musepack",
    ".spx": "Speex",
    ".ra": "RealAudio",
    ".dsf": "DSD",
    ".dff": "DSD",
    ".wac": "Wildlife Acoustics WAC",
    ".w4v": "Wildlife Acoustics W4V",
}
KALEIDOSCOPE = frozenset((".wac", ".w4v"))

# First bytes, and what follows at byte 8 where the first alone do not decide.
_SIGNATURES = (
    (b"RIFF", b"WAVE"),
    (b"RIFX", b"WAVE"),
    (b"RF64", b"WAVE"),
    (b"BW64", b"WAVE"),
    (b"FORM", b"AIF"),
    (b"FORM", b"8SVX"),
    (b"FORM", b"16SV"),
    (b"fLaC", b""),
    (b"OggS", b""),
    (b"ID3", b""),
    (b".snd", b""),
    (b"caff", b""),
    (b"riff\x2e\x91\xcf\x11", b""),
    (b"Creative Voice File", b""),
    (b"NIST_1A", b""),
    (b"ALawSoundFile", b""),
    (b"Extended Instrument", b""),
    (b"2BIT", b""),
    (b"PVF1\n", b""),
)


@dataclass(frozen=True)
class Foreign:
    """What a file is that libsndfile cannot read.

    Attributes:
        name: as "MPEG-4 audio".
        reader: ffmpeg's name of the format; None where it holds no sound or ffmpeg cannot help.
        sound: whether somebody who puts it among recordings means it as one.
        cure: what to do.
    """

    name: str
    reader: str | None = None
    sound: bool = False
    cure: str = _FFMPEG


def _heard(name: str, reader: str) -> Foreign:
    return Foreign(name, reader, sound=True)


def _film(name: str, reader: str) -> Foreign:
    return Foreign(name, reader, cure="take the sound out of it (ffmpeg -i FILE -vn FILE.wav)")


_NONE = "it holds no sound; remove it"
_UNPACK = "unpack it first"
_TUNE = Foreign("MIDI, which holds notes and no sound", cure="render it to WAV first")
_PICTURE = Foreign("a picture", cure=_NONE)
_MATROSKA = _heard("WebM or Matroska", "matroska")
_WINDOWS_MEDIA = _heard("Windows Media (WMA or WMV)", "asf")

# First bytes that decide alone.
_FOREIGN = (
    (b"WAac", Foreign("Wildlife Acoustics WAC", sound=True, cure=_WILDLIFE)),
    (b"#!AMR", _heard("AMR", "amr")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _WINDOWS_MEDIA),
    (b"ADIF", _heard("AAC", "aac")),
    (b"MAC ", _heard("Monkey's Audio (APE)", "ape")),
    (b"wvpk", _heard("WavPack", "wv")),
    (b"TTA1", _heard("True Audio", "tta")),
    (b"tBaK", _heard("TAK", "tak")),
    (b"MPCK", _heard("Musepack", "mpc8")),
    (b"MP+", _heard("Musepack", "mpc")),
    (b"DSD ", _heard("DSD (DSF)", "dsf")),
    (b"FRM8", _heard("DSD (DSDIFF)", "iff")),
    (b"\x0b\x77", _heard("AC-3", "ac3")),
    (b"\x7f\xfe\x80\x01", _heard("DTS", "dts")),
    (b".ra\xfd", _heard("RealAudio", "rm")),
    (b".RMF", _heard("RealMedia", "rm")),
    (b"ajkg", _heard("Shorten", "shn")),
    (b"#!SILK", Foreign("SILK, a voice message", sound=True, cure="export it as WAV or MP3")),
    (b"\x02#!SILK", Foreign("SILK, a voice message", sound=True, cure="export it as WAV or MP3")),
    (b"FLV\x01", _film("a Flash video", "flv")),
    (b"\x00\x00\x01\xba", _film("an MPEG video", "mpeg")),
    (b"\x00\x00\x01\xb3", _film("an MPEG video", "mpegvideo")),
    (b"MThd", _TUNE),
    (b"PK\x03\x04", Foreign("a zip archive", cure=_UNPACK)),
    (b"PK\x05\x06", Foreign("an empty zip archive", cure=_NONE)),
    (b"\x1f\x8b", Foreign("a gzip archive", cure=_UNPACK)),
    (b"BZh", Foreign("a bzip2 archive", cure=_UNPACK)),
    (b"\xfd7zXZ\x00", Foreign("an xz archive", cure=_UNPACK)),
    (b"\x28\xb5\x2f\xfd", Foreign("a zstd archive", cure=_UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", cure=_UNPACK)),
    (b"Rar!\x1a\x07", Foreign("a RAR archive", cure=_UNPACK)),
    (b"%PDF", Foreign("a PDF", cure=_NONE)),
    (b"\x89PNG\r\n", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"GIF8", _PICTURE),
    (b"\x00\x05\x16\x07", Foreign("what macOS keeps beside a file", cure=_NONE)),
    (b"\x00\x00\x00\x01Bud1", Foreign("what macOS keeps of a folder", cure=_NONE)),
    (b"SQLite format 3", Foreign("an SQLite database", cure=_NONE)),
    (b"\x7fELF", Foreign("a program", cure=_NONE)),
    (b"\x89HDF\r\n", Foreign("an HDF5 file", cure="export its sounds as WAV")),
    (b"\x93NUMPY", Foreign("a numpy array", cure="write it as WAV with soundfile.write")),
)

_MP4_BRANDS = (
    ((b"M4A", b"M4B", b"M4P"), _heard("MPEG-4 audio (AAC or ALAC in MP4)", "mov")),
    ((b"3g",), _heard("3GP", "mov")),
    ((b"qt",), _film("a QuickTime film", "mov")),
    ((b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"crx"), _PICTURE),
    ((b"",), _heard("MPEG-4 (MP4)", "mov")),
)
_QUICKTIME = (b"moov", b"mdat", b"wide", b"pnot")

# What Ogg holds that libsndfile does not read: at byte 28.
_IN_OGG = (
    (b"OpusHead", "Opus"),
    (b"Speex", "Speex"),
    (b"\x80theora", "a Theora video"),
    (b"fishead", "an Ogg video"),
    (b"BBCD", "a Dirac video"),
)

# The codecs of WAV that libsndfile reads; a file in one of these is damaged where it fails.
_WAV_CODECS = (0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0x40, 0x45, 0x50, 0x55, 0xFFFE)

# Kilobits a second of MPEG-1 and MPEG-2, layer by layer, by their code from 1.
_BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def has_sound_signature(head: bytes) -> bool:
    """Say whether the first bytes of a file are those of a format that libsndfile reads."""
    return any(head.startswith(a) and head[8:].startswith(b) for a, b in _SIGNATURES)


def begins_as_sound(head: bytes) -> bool:
    """Say whether the first bytes are those of a sound format, readable or not.

    Args:
        head: the first `HEAD_BYTES`, or all that there are.
    """
    found = foreign_format(head)
    if found is not None:
        return found.sound
    return has_sound_signature(head) or _chained(head, mpeg_frame)


def foreign_format(head: bytes) -> Foreign | None:
    """Name a file that libsndfile cannot read, whatever its name is.

    Args:
        head: the first `HEAD_BYTES`, or all that there are.

    Returns:
        What it is; None for what libsndfile may read, and for what is not known.
    """
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        # The kind of document stands in the first element.
        named = b"matroska" in head[:64], b"webm" in head[:64]
        return _heard(("WebM", "Matroska")[named[0]], "matroska") if any(named) else _MATROSKA
    if head[4:8] == b"ftyp":
        return next(kind for brands, kind in _MP4_BRANDS if head[8:].startswith(brands))
    if head[4:8] in _QUICKTIME and not has_sound_signature(head):
        return _film("a QuickTime film", "mov")
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"RMID", b"sfbk"):
        return _film("an AVI video", "avi") if head[8:12] == b"AVI " else _TUNE
    if head[:1] == b"G" and head[188:189] == b"G" == head[376:377]:
        return _film("an MPEG video", "mpegts")
    for first, kind in _FOREIGN:
        if head.startswith(first):
            return kind
    return _heard("AAC", "aac") if _chained(head, _aac_frame) else None


def for_ffmpeg(head: bytes, codec: int | None) -> Foreign | None:
    """Say what a file is that libsndfile refused, where ffmpeg may know its codec.

    Args:
        head: its first bytes.
        codec: of a WAV file, by its number.
    """
    if head.startswith(b"OggS"):
        for first, name in _IN_OGG:
            if head[28:].startswith(first):
                return _heard(f"{name} in Ogg", "ogg")
    if head.startswith(b"caff"):
        return _heard("a CAF file in another codec", "caf")
    if codec is not None and codec not in _WAV_CODECS:
        return _heard(f"a WAV file in the codec 0x{codec:04X}", "wav")
    return None


def holds_no_sound(head: bytes) -> str | None:
    """Say what a file holds when its first bytes show that it is text and not sound.

    Args:
        head: the first bytes.

    Returns:
        A clause without the file's name, or None when it may be sound.
    """
    if has_sound_signature(head) or foreign_format(head) is not None:
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:300].lower()
    if start.startswith((b"<!doctype html", b"<html")) or (
        start.startswith((b"<!--", b"<?xml")) and b"<html" in start
    ):
        return "it holds a web page, not sound; perhaps the download was refused. Download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the sound itself; get it with: git lfs pull"
    if _is_text(head):
        return "it holds text, not sound"
    return None


def why_unreadable(name: PurePath) -> str | None:
    """Say, with the cure, that this extension cannot be read; None for other extensions."""
    suffix = name.suffix.lower()
    kind = UNREADABLE.get(suffix)
    cure = _WILDLIFE if suffix in KALEIDOSCOPE else _FFMPEG
    return kind and f"{kind} cannot be read; {cure}"


def explain_foreign(kind: Foreign) -> str:
    """Say what a file is, and what to do: a clause without the file's name."""
    if kind.reader is None:
        return f"it is {kind.name}; {kind.cure}"
    return f"it is {kind.name}, which is only read where ffmpeg is installed; {kind.cure}"


def explain_refusal(path: PurePath, head: bytes, said: str, codec: int | None = None) -> str:
    """Say why libsndfile refused a file, with the cure.

    Args:
        path: the file; only its extension is used.
        head: its first bytes.
        said: libsndfile's own message.
        codec: of a WAV file, by its number.

    Returns:
        A clause without the file's name.
    """
    kind = foreign_format(head)
    if kind is not None:
        return explain_foreign(kind)
    if not any(head):
        return "it begins with nothing but zeros; perhaps a copy was interrupted. Copy it again"
    if path.suffix.lower() in KALEIDOSCOPE:
        return f"{why_unreadable(path)} ({said})"
    inside = for_ffmpeg(head, codec)
    if inside is not None:
        return f"{explain_foreign(inside)}. libsndfile says: {said}"
    if has_sound_signature(head):
        return f"it is damaged or in a codec that libsndfile does not know ({said})"
    unreadable = why_unreadable(path)
    if unreadable is not None:
        return unreadable
    return "its content is not a sound format that libsndfile knows; convert it to WAV or FLAC"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut by the end of `head`.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)


def _chained(head: bytes, length: Callable[[bytes], int]) -> bool:
    """Whether a frame is followed by another one: `length` gives its bytes, or 0."""
    first = length(head[:8])
    return 0 < first <= len(head) - 8 and length(head[first : first + 8]) > 0


def _aac_frame(head: bytes) -> int:
    if len(head) < 8 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def mpeg_frame(head: bytes) -> int:
    """Bytes of an MPEG audio frame by its first 8 bytes; 0 for what is no such frame."""
    if len(head) < 8 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, code = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or code == 3:
        return 0
    bits = 1000 * _BITRATES[1 if version == 3 else 2, layer][rate - 1]
    hertz = (44_100, 48_000, 32_000)[code] >> {3: 0, 2: 1, 0: 2}[version]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding
