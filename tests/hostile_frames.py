"""A process of frames that does as the name of a file tells: dies, hangs, or takes memory."""

import os
import signal
import time

from unfreeze.audio import frame_worker


def main() -> None:
    """As `unfreeze.audio.frame_worker.main`, with a reader of its own."""
    read = frame_worker._Reader.waveform

    def waveform(self, path, resampler):
        with (path.parents[1] / "tried.txt").open("a") as file:
            file.write(f"{path.name}\n")
        if path.name.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name.startswith("hang"):
            time.sleep(1000)
        if path.name.startswith("hoard"):
            bytearray(3 << 30)
        return read(self, path, resampler)

    frame_worker._Reader.waveform = waveform
    frame_worker.main()
