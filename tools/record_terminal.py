"""Runs a command in a terminal and draws what it shows as a moving picture.

    pip install pyte
    python tools/record_terminal.py docs/images/demo.gif -- unfreeze demo

The picture is made of what the command really printed. Only time is changed, and the last line
of the picture says so: a wait between two lines takes at most `--longest` seconds, with the bars
that run meanwhile in a few steps, lines that come by the dozen stay to be read, and so does the
end, for `--last`.
"""

import argparse
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pyte
from PIL import Image, ImageColor, ImageDraw, ImageFont

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SIZE, MARGIN = 14, 14
# Pictures of a wait, at most; seconds for which one can be seen.
MOST, SHORTEST = 5, 0.05
# Seconds for half a screen of lines that were printed at once.
READ = 2.5
# How lines that are written again begin: some lines up.
BACK = re.compile(rb"\x1b\[(\d*)A")
BACKGROUND, FOREGROUND, FAINT = "#16181d", "#d8dce4", "#7d8593"
# The names are pyte's. Black on the background would not be seen.
COLOURS = {
    "default": FOREGROUND, "black": "#5b6270", "red": "#ef7a7a", "green": "#83c98a",
    "brown": "#e2c06a", "blue": "#7fb0f0", "magenta": "#cf9bea", "cyan": "#74cbd0",
    "white": "#f2f4f8", "brightblack": FAINT, "brightred": "#ff9a9a", "brightgreen": "#a5e3a9",
    "brightbrown": "#f3d78a", "brightblue": "#a3c9ff", "brightmagenta": "#e3bdf7",
    "brightcyan": "#9be6ea", "brightwhite": "#ffffff",
}  # fmt: skip


def run_in_terminal(command: list[str], columns: int, rows: int) -> Iterator[tuple[float, bytes]]:
    """What a command prints, piece by piece, each with the seconds since its start.

    Raises:
        SystemExit: The command failed.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    while True:
        ready, _, _ = select.select([ours], [], [], 0.05)
        if ready:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other side is closed
                piece = b""
            if not piece:
                break
            yield time.monotonic() - start, piece
        elif process.poll() is not None:
            break
    os.close(ours)
    if process.wait():
        raise SystemExit(f"The command ended with {process.returncode}: {' '.join(command)}")


def typed(line: str) -> Iterator[tuple[float, bytes]]:
    """A prompt and a command, as if somebody typed it."""
    yield 0.0, b"\x1b[32m$\x1b[0m "
    for letter in line:
        yield 0.05, letter.encode()
    yield 0.6, b"\r\n"


class Drawing:
    """Draws the screen of a terminal, with a note below it."""

    def __init__(self, columns: int, rows: int, note: str):
        self.plain = ImageFont.truetype(str(FONTS / "DejaVuSansMono.ttf"), SIZE)
        self.bold = ImageFont.truetype(str(FONTS / "DejaVuSansMono-Bold.ttf"), SIZE)
        self.width = round(self.plain.getlength("M"))
        self.height = round(SIZE * 1.35)
        self.size = (columns * self.width + 2 * MARGIN, (rows + 1) * self.height + 2 * MARGIN)
        self.note = note

    def __call__(self, screen: pyte.Screen) -> Image.Image:
        image = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        for row in range(screen.lines):
            for column in range(screen.columns):
                cell = screen.buffer[row][column]
                if cell.data.strip():
                    colour = COLOURS.get(cell.fg) or f"#{cell.fg}"
                    place = (MARGIN + column * self.width, MARGIN + row * self.height)
                    draw.text(place, cell.data, colour, font=self.bold if cell.bold else self.plain)
        corner = (self.size[0] - MARGIN, self.size[1] - MARGIN)
        draw.text(corner, self.note, FAINT, font=self.plain, anchor="rs")
        return image


def steps(pieces: list[tuple[float, bytes]], longest: float) -> Iterator[tuple[bytes, float]]:
    """What to print before each picture, and for how many seconds the picture is shown.

    A line that is finished begins a wait, which lasts until the next one. Of what running
    lines show meanwhile, only some is drawn.
    """
    waits: list[list[tuple[float, bytes]]] = []
    for piece in pieces:
        if not waits or (b"\n" in piece[1] and not BACK.search(piece[1])):
            waits.append([])
        waits[-1].append(piece)
    for index, wait in enumerate(waits):
        following = waits[index + 1][0][0] if index + 1 < len(waits) else wait[-1][0]
        whole = following - wait[0][0]
        count = max(1, min(MOST, len(wait), int(whole / 0.1)))
        # The first piece is printed at once, the last one before the next line.
        ends = [round(len(wait) * part / count) for part in range(1, count + 1)]
        for begin, end in zip([0, *ends], ends, strict=False):
            yield b"".join(text for _, text in wait[begin:end]), min(whole, longest) / count


def few_colours() -> Image.Image:
    """A picture with the palette of all: text and its smooth edges, and the colours of bars."""
    back, fore = (np.array(ImageColor.getrgb(colour)) for colour in (BACKGROUND, FOREGROUND))
    edges = [back + (fore - back) * step // 8 for step in range(9)]
    names = [COLOURS["white"], COLOURS["green"], COLOURS["cyan"], "#456b4c", "#ff005f", "#5faf00"]
    colours = np.array([*edges, *map(ImageColor.getrgb, names), ImageColor.getrgb("#3a3a3a")])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.astype(np.uint8).tobytes())
    return palette


def pictures(
    line: str, pieces: list[tuple[float, bytes]], columns: int, rows: int, longest: float
) -> tuple[list[Image.Image], list[float]]:
    """The pictures of a recording, and for how many seconds each is shown."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    draw = Drawing(columns, rows, f"waits are cut to {longest:g} s")
    images: list[Image.Image] = []
    shown: list[float] = []
    unread = 0
    for duration, text in chain(
        typed(line), ((seconds, text) for text, seconds in steps(pieces, longest))
    ):
        for part in re.split(rb"(?<=\n)", text):
            stream.feed(part)
            unread += part.count(b"\n") - sum(int(up or 1) for up in BACK.findall(part))
            if unread >= rows // 2:
                images.append(draw(screen))
                shown.append(READ)
                unread = 0
        image = draw(screen)
        if images and image.tobytes() == images[-1].tobytes():
            shown[-1] = max(shown[-1], min(shown[-1] + duration, longest))
        elif shown and shown[-1] < SHORTEST:
            # Too short to be seen: its time goes to what follows.
            images[-1], shown[-1] = image, shown[-1] + duration
        else:
            images.append(image)
            shown.append(duration)
        if shown[-1] >= SHORTEST:
            unread = 0
    return images, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("command", nargs="+")
    parser.add_argument("--show", help="the command as it is shown (default: as it is run)")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--longest", type=float, default=1.0)
    parser.add_argument("--last", type=float, default=6.0)
    given = parser.parse_args()
    line = given.show or " ".join(given.command)
    pieces = list(run_in_terminal(given.command, given.columns, given.rows))
    images, shown = pictures(line, pieces, given.columns, given.rows, given.longest)
    shown[-1] = given.last
    # One palette for all, so that only what changes is stored.
    palette = few_colours()
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    part = given.out.with_suffix(".part")
    frames[0].save(
        part, "GIF", save_all=True, append_images=frames[1:], loop=0, optimize=True,
        duration=[max(20, round(1000 * seconds)) for seconds in shown],
    )  # fmt: skip
    part.replace(given.out)
    print(
        f"{given.out}: {len(frames)} pictures, {sum(shown):.0f} s of {pieces[-1][0]:.0f} s, "
        f"{given.out.stat().st_size / 1e6:.2f} MB",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
