"""The experiment of *Multi-Exit Vision Transformer* (2106.15183) on a smaller network: which head, where?

``python -m benchmarks.multi_exit cifar10 --data cifar10.npz --checkpoint vit_tiny.safetensors`` fine-tunes the
pretrained network, computes the features of its blocks once, trains every head on them, and compares accuracies, costs
and the order of the paper's seven heads with the authors' own. It writes ``results/multi_exit-cifar10.json`` and a
picture.
"""
