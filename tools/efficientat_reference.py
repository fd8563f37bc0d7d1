"""Write what the reference implementation of EfficientAT makes of weights by a formula.

    git clone https://github.com/fschmid56/EfficientAT
    pip install torch torchvision torchaudio
    python tools/efficientat_reference.py EfficientAT

The numbers go to tests/backbones/efficientat_reference.npz, against which our network is
tested: for `mn04` and `mn10` in eval mode, names and shapes of the state dict, and for each of
`efficientat_made.sounds()` some frames of the spectrogram, the 527 logits and the embedding.
The committed file is from commit a425fdce92572e602a1d5634799bd9f1f2efa806 of 20 November 2024.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import efficientat_made as made  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, help="folder of the repository")
    given = parser.parse_args()
    # Its modules read files by paths that begin there.
    os.chdir(given.clone)
    sys.path.insert(0, str(Path.cwd()))
    import torch
    from models.mn.model import get_model
    from models.preprocess import AugmentMelSTFT

    found: dict[str, np.ndarray] = {}
    with torch.no_grad():
        front = AugmentMelSTFT(n_mels=128, sr=32_000, win_length=800, hopsize=320).eval()
        mel = front(torch.tensor(made.sounds()))
        found["mel"] = mel.numpy().transpose(0, 2, 1)[:, list(made.FRAMES)]
        for name, width in (("mn04", 0.4), ("mn10", 1.0)):
            model = get_model(width_mult=width).eval()
            shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
            model.load_state_dict(
                {key: torch.tensor(made.tensor(key, shape)) for key, shape in shapes.items()}
            )
            logits, embedding = model(mel[:, None])
            found[f"{name}_logits"], found[f"{name}_embedding"] = logits.numpy(), embedding.numpy()
            found[f"{name}_names"] = np.array(list(shapes))
            found[f"{name}_shapes"] = np.array(["x".join(map(str, s)) for s in shapes.values()])
    np.savez_compressed(made.NUMBERS, **found)


if __name__ == "__main__":
    main()
