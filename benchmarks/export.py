"""What does a self-exiting file take to make, and how large is it?

ViT-B/16 at 224 px with LGViT's eight heads in their places, random weights, 100 classes as in the paper.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import timm
import torch

import offramp
from benchmarks import publish
from offramp.policies.threshold import Threshold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_base_patch16_224")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backbone = timm.create_model(args.backbone, num_classes=args.classes)
    model = offramp.attach(backbone, offramp.layouts.lgvit(backbone)).eval()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.perf_counter()
        offramp.export_onnx(model, path, Threshold((0.5,) * len(model.exits)))
        seconds, size = time.perf_counter() - start, path.stat().st_size
    publish(
        "export",
        {
            "backbone": args.backbone,
            "classes": args.classes,
            "heads": model.head_names,
            "exits_after": model.after,
            "threads": args.threads,
            "seconds": seconds,
            "file_mb": size / 1e6,
            "weights_mb": weights / 1e6,
            "file_over_weights": size / weights,
        },
    )


if __name__ == "__main__":
    main()
