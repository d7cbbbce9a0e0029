"""A ViT that counts in crops: the seven heads of Multi-Exit Vision Transformer, each a number, on the frames of
``benchmarks.counting``.

``python -m benchmarks.crops --data beijing_brt.npz --checkpoint vit_tiny.safetensors`` does as that paper's authors did
with DISCO (2106.15183): a frame is cut into crops, a pretrained ViT learns the number of heads on each, exits of one
kind after the other learn from what it computes, and a frame's number is the sum over its crops. Policies let each crop
leave by itself; the kind of their exits is the one with the smallest error on validation frames of all splits.

It writes ``results/crops.json`` and a picture.
"""
