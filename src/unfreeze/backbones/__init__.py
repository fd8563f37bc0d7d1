"""Pretrained backbones: their front ends, weights and builders.

Nothing here imports Keras until a model is built, so the command line
names, finds and checks weights without that wait.
"""
