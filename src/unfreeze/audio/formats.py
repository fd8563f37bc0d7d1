"""Which files hold sound: by the name's ending, else by the first bytes.

The content decides in the end (libsndfile looks at nothing else); the ending
only says whether a file in a class folder was meant to be a recording.
"""

from pathlib import Path

# Endings of what libsndfile reads with a header (it needs no more than that).
_ENDINGS = """
.wav .wave .wavex .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mp1 .mpga .aif .aiff
.aifc .au .snd .caf .voc .sph .nist .ircam .sf .svx .8svx .iff .paf .fap .pvf .xi .htk
.sds .avr .sd2 .wve
"""
READABLE = frozenset(_ENDINGS.split())

# Recordings to a user, but libsndfile has no decoder for them.
UNREADABLE = {
    ".m4a": "AAC or ALAC in MP4",
    ".m4b": "AAC in MP4",
    ".mp4": "MP4",
    ".aac": "AAC",
    ".wma": "Windows Media Audio",
    ".amr": "AMR",
    ".3gp": "3GP",
    ".webm": "WebM",
    ".mka": "Matroska",
    ".ac3": "AC-3",
    ".ape": "Monkey's Audio",
    ".wv": "WavPack",
    ".dsf": "DSD",
}

# First bytes, and what follows at byte 8 where the first alone do not decide.
_SIGNATURES = (
    (b"RIFF", b"WAVE"),
    (b"RF64", b"WAVE"),
    (b"FORM", b"AIF"),
    (b"FORM", b"8SVX"),
    (b"fLaC", b""),
    (b"OggS", b""),
    (b"ID3", b""),
    (b".snd", b""),
    (b"caff", b""),
    (b"riff\x2e\x91\xcf\x11", b""),
    (b"Creative Voice File", b""),
    (b"NIST_1A", b""),
)


def meant_as_sound(path: Path) -> bool:
    """Tell whether a file in a class folder was meant to be a recording.

    Args:
        path: a regular file. It is opened only when its ending tells nothing.

    Returns:
        True for a known ending in any case (readable or not) or for the first
        bytes of a sound format.
    """
    suffix = path.suffix.lower()
    if suffix in READABLE or suffix in UNREADABLE:
        return True
    try:
        with path.open("rb") as file:
            return has_sound_signature(file.read(32))
    except OSError:
        return False


def has_sound_signature(head: bytes) -> bool:
    """Tell whether the first 32 bytes of a file are those of a sound format."""
    return any(head.startswith(a) and head[8:].startswith(b) for a, b in _SIGNATURES)


def holds_no_sound(head: bytes) -> str | None:
    """Say what a file holds when its first bytes show that it is no sound.

    Args:
        head: the first bytes, 512 at most.

    Returns:
        A clause without the file's name; None when it may be sound.
    """
    if has_sound_signature(head):
        return None
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "it holds a web page, no sound; was the download refused? Fetch it again"
    if _is_text(head):
        return "it holds text, no sound"
    return None


def explain_refusal(path: Path, head: bytes, said: str) -> str:
    """Say why libsndfile refused a file, with the cure.

    Args:
        path: the file; only its ending is used.
        head: its first bytes, 512 at most.
        said: libsndfile's own message.

    Returns:
        A clause without the file's name.
    """
    kind = UNREADABLE.get(path.suffix.lower())
    if kind is not None:
        return f"{kind} cannot be read; convert it first (ffmpeg -i FILE FILE.wav)"
    if not any(head):
        return "it begins with zeros only; was a copy cut short? Copy it again"
    if has_sound_signature(head):
        return f"it is damaged or in a codec that libsndfile does not know ({said})"
    return "its content is no sound format that libsndfile knows; convert it to WAV or FLAC"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut by the end of `head`.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
