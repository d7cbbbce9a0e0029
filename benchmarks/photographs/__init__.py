"""What does a user of a trained ViT get, in the runtimes that people deploy, beside what would be done without exits?

``python -m benchmarks.photographs imagenette --data imagenette.npz --checkpoint vit_tiny.safetensors`` takes the first
seed of ``benchmarks.tails`` from ``--work``, or trains it: the network alone at three sizes, with exits, with tails,
with both. Each becomes a file in fp32 and in int8; each file's policy is calibrated on validation images in the runtime
and precision that it is for, so that nothing is lost there; test images are read once. All times are ratios to the
network alone in OpenVINO in bf16, timed in turn with each.
"""
