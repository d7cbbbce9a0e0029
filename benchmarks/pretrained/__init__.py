"""How to give exits to a fine-tuned network: what does each way of training do to its final exit and to the early ones?

``python -m benchmarks.pretrained imagenette --data imagenette.npz --checkpoint vit_tiny.safetensors`` fine-tunes the
pretrained network, or takes the one that ``benchmarks.tails`` left in the same ``--work``; trains local and global
heads on it in every way, equally many passes each; writes ``results/pretrained-imagenette.json`` and a picture.
"""
