"""What exits cost in training: a step of joint training with LGViT's eight heads beside a step of the plain backbone.

ViT-B/16 at 224 px, 100 classes, random weights and images, batch 8, AdamW, gradients clipped: what ``offramp.train``
does in a step. Plain, joint, and the frozen backbone's heads alone are timed in turn in one run. With bf16 autocast, or
in fp32 (``--precision fp32``): where a processor has no bf16, a step in it takes a hundred times as long.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import timm
import timm.optim
import torch

import offramp
from benchmarks import publish
from offramp import layouts
from offramp._progress import progress_bar
from offramp.cost import in_turn
from offramp.registry import OBJECTIVES
from offramp.training import Batch
from offramp.training._modes import attention_for, only

CPU = torch.device("cpu")


def step_of(name: str, objective: str, exits: bool, batch: Batch, precision: str) -> Callable[[], None]:
    """One training step of a model of its own."""
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=100)
    model = offramp.attach(backbone, layouts.lgvit(backbone) if exits else [])
    goal = OBJECTIVES.resolve(objective)()
    trained = list(goal.trained(model))

    def step() -> None:
        with only(trained, model), attention_for(CPU, model):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = goal(model, batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    with only(trained, model):
        optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-5, weight_decay=0.05)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    args = parser.parse_args()
    batch = Batch(torch.randn(args.batch, 3, 224, 224), torch.randint(100, (args.batch,)))
    steps = {
        "plain": step_of(args.backbone, "backbone", False, batch, args.precision),
        "joint": step_of(args.backbone, "joint", True, batch, args.precision),
        "frozen": step_of(args.backbone, "frozen", True, batch, args.precision),
    }
    with progress_bar("timing", args.rounds + 1) as bar:
        calls = {name: [step] for name, step in steps.items()}
        with torch.inference_mode(False):
            timed = in_turn(calls, args.rounds, CPU, bar)
    seconds = {name: [sum(pieces) for pieces in rounds] for name, rounds in timed.items()}
    ratios = {
        name: sorted(own / plain for own, plain in zip(seconds[name], seconds["plain"], strict=True))
        for name in ("joint", "frozen")
    }
    publish(
        "step_cost",
        {
            "backbone": args.backbone,
            "heads": "LGViT's eight",
            "batch": args.batch,
            "precision": args.precision,
            "threads": torch.get_num_threads(),
            "rounds": args.rounds,
            "seconds": {name: statistics.median(values) for name, values in seconds.items()},
            "ratio_to_plain": {
                name: {"median": statistics.median(values), "range": [values[0], values[-1]]}
                for name, values in ratios.items()
            },
        },
    )


if __name__ == "__main__":
    main()
