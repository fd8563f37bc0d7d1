"""Pretrained backbones: their front ends, weights and builders.

Nothing here imports Keras until a model is built, so the command line can
name, find and check weights at once.
"""

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import BACKBONES, Backbone, get_backbone

__all__ = ["BACKBONES", "Backbone", "FrontEnd", "get_backbone"]
