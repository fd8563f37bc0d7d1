"""Builds the feature store of a folder of sounds.

python -m benchmarks.sides.build_features DATA OUT
"""

import sys

from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.registry import get_backbone


def main():
    build_store(read_manifest(sys.argv[1]), get_backbone("yamnet").front_end, sys.argv[2])


if __name__ == "__main__":
    main()
