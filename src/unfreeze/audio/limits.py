"""What reading one sound file may cost: memory, time, and length.

A file of a few kilobytes can promise years of sound, and FLAC can keep that
promise: 65,535 equal samples take 14 bytes. The limits are far from anything
that was recorded, and known before much is spent.
"""

# Seconds without a sign of life after which decoding counts as hung. A sign is
# sent after each block, which takes a tenth of a second.
PATIENCE = 60.0
# Bytes that a process which decodes may hold. It needs 0.1 GB, and of an MP3
# inside a WAV the whole file.
MEMORY = 1 << 30
# Samples beyond are no sound, whatever the scale: 32-bit integers stored as floats
# reach 2e9. From 1e34 on the log-mel frames would be infinite.
LARGEST_SAMPLE = 1e12
# A training clip has one label for all of its length: none lasts a day.
LONGEST_CLIP = 24 * 3600.0

_HOUR, _MEGABYTE = 3600.0, 1e6
# Processor seconds for a file, and for each megabyte of it. Speech at 6 kbit/s
# has 22 minutes in a megabyte, which take a slow processor 10 seconds.
_SECONDS, _SECONDS_A_MEGABYTE = 10.0, 15.0
# Hours of sound in a file, and for each megabyte of it. Ten hours of silence at
# 16 kHz are 2 MB of FLAC: 5 hours a megabyte, more than any recorder's noise.
_HOURS, _HOURS_A_MEGABYTE = 24.0, 20.0


def decode_seconds(size: int) -> float:
    """Return the processor seconds that decoding may take.

    Args:
        size: bytes of the file.
    """
    return _SECONDS + _SECONDS_A_MEGABYTE * size / _MEGABYTE


def longest_seconds(size: int) -> float:
    """Return the seconds of sound above which a file is taken for a trap.

    Args:
        size: bytes of the file.
    """
    return _HOUR * (_HOURS + _HOURS_A_MEGABYTE * size / _MEGABYTE)
