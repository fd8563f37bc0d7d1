"""Files to patches with torchaudio. Args: folder, front_end (YAMNet's constants).

torchaudio no longer decodes by itself, so soundfile does.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.sides.features_librosa import cut, padded


def _torchaudio():
    try:
        import torchaudio
    except OSError:
        # Its compiled part wants CUDA's libraries even beside a PyTorch without them.
        # Resampling and mel spectrograms are written in Python and do not use it.
        for name in [name for name in sys.modules if name.startswith("torchaudio")]:
            del sys.modules[name]
        without = types.ModuleType("torchaudio._extension")
        without._IS_TORCHAUDIO_EXT_AVAILABLE = without._IS_ALIGN_AVAILABLE = False
        without.fail_if_no_align = lambda function: function
        without._check_cuda_version = lambda: None
        sys.modules["torchaudio._extension"] = without
        import torchaudio
    return torchaudio


def prepare(args):
    """All files a round."""
    torchaudio = _torchaudio()
    listed = json.loads((Path(args["folder"]) / "files.json").read_text())
    front = args["front_end"]
    mel_of = torchaudio.transforms.MelSpectrogram(
        sample_rate=front["sample_rate"],
        n_fft=front["fft"],
        win_length=front["window"],
        hop_length=front["hop"],
        f_min=front["low_hz"],
        f_max=front["high_hz"],
        n_mels=front["bands"],
        power=1.0,
        center=False,
        norm=None,
        mel_scale="htk",
    )
    resamplers = {}

    def patches_of(path):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.T).mean(0)
        if rate != front["sample_rate"]:
            if rate not in resamplers:
                resamplers[rate] = torchaudio.transforms.Resample(rate, front["sample_rate"])
            waveform = resamplers[rate](waveform)
        mel = mel_of(torch.from_numpy(padded(waveform.numpy(), front)))
        return cut(torch.log(mel.T + front["log_offset"]).numpy(), front)

    def run():
        patches = np.concatenate([patches_of(path) for path in listed["files"]])
        return {"items": listed["seconds"], "patches": len(patches)}

    run()
    return run
