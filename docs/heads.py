"""Writes docs/heads.md and its pictures: python docs/heads.py (needs matplotlib). Costs are counted, not written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch, Rectangle

from offramp.cost import head_costs
from offramp.registry import HEADS

HERE = Path(__file__).parent
READ, PART, LEFT, INK = "#2f6f8f", "#9fc4d4", "#f0efe9", "#333333"


@dataclass(frozen=True)
class Head:
    """What is drawn and said of a head.

    Args:
        patches: how it reads patches: ``all``, ``none``, ``third`` (every second one), ``squares`` (2 × 2 together).
        token: how it reads the class token: ``read``, ``later`` (added or joined further on), ``none``.
        boxes: what happens, from left to right.
        reads: the same in words.
        choose: when to take it.
    """

    patches: str
    token: str
    boxes: tuple[str, ...]
    reads: str
    choose: str


SHOWN = {
    "linear": Head(
        "none",
        "read",
        ("LayerNorm", "linear"),
        "The class token; the mean of class and distillation token; or the mean of the patches where the backbone's "
        "own classifier reads those.",
        "First, always: it costs nothing, and any other head has to beat it at equal MACs.",
    ),
    "mlp": Head(
        "none",
        "read",
        ("LayerNorm", "256, ELU", "256, ELU", "linear"),
        "As `linear`.",
        "Where the class token is mature, in the last quarter; before that the paper has it far behind the others.",
    ),
    "cnn-ignore": Head(
        "all",
        "none",
        ("conv 3×3, 16\nELU", "max pool 2×2", "flatten", "256, 256\nELU", "linear"),
        "The patches as a map. The class token is ignored.",
        "Where the class token is still immature and a small model file matters: few parameters, few MACs.",
    ),
    "cnn-add": Head(
        "all",
        "later",
        ("add token to\nevery patch", "conv 3×3, 16\nELU", "max pool,\nflatten", "256, 256\nELU", "linear"),
        "The patches as a map, the class token added to each.",
        "As `cnn-ignore`, when the class token already says something. It costs the same.",
    ),
    "cnn-project": Head(
        "all",
        "later",
        ("join token to\nevery patch", "conv 3×3, 16\nELU", "max pool,\nflatten", "256, 256\nELU", "linear"),
        "The patches as a map, the class token joined to each; the convolution projects.",
        "When adding loses too much, for twice the cost of `cnn-add`. "
        '`project="token"` projects each pair by a layer of its own, at ten times that cost.',
    ),
    "vit": Head(
        "all",
        "read",
        ("encoder block", "LayerNorm\nclass token", "256, 256\nELU", "linear"),
        "All tokens through one more encoder block, then the class token.",
        "Seldom: it costs as much as the backbone's next block, so it has to beat `linear` one block later.",
    ),
    "mixer": Head(
        "all",
        "read",
        ("mix tokens\nMLP", "mix channels\nMLP", "mean", "256, 256\nELU", "linear"),
        'All tokens, mixed over positions and over channels; `class_token="drop"` leaves the class token out.',
        "As `vit`, where attention is slow and the input size is fixed.",
    ),
    "resmlp": Head(
        "all",
        "read",
        ("linear over\ntokens", "MLP", "mean", "256, 256\nELU", "linear"),
        'All tokens, through one residual layer over positions and one over channels; `class_token="drop"` leaves the '
        "class token out.",
        "As `mixer`; a little cheaper.",
    ),
    "lph": Head(
        "all",
        "later",
        ("conv 1×1\nGELU, BN", "depth-wise 3×3\nGELU, BN", "conv 1×1, BN\n+ patches", "mean\n+ token", "linear"),
        "The patches as a map, with a residual; the raw class token is added after pooling.",
        "At shallow exits, where local detail is missing. It costs a sixth of a block of ViT-B. "
        "`depthwise=False` is the paper's form for its deeper local exits.",
    ),
    "gah": Head(
        "third",
        "later",
        ("pick every\n2nd patch", "attention\n8 heads", "mean\n+ token", "linear"),
        "Every second (`stride=2`) or third patch in both directions; the raw class token is added after pooling.",
        "At deep exits, where patches repeat each other: attention over a quarter or a ninth of them.",
    ),
    "sl-vit": Head(
        "squares",
        "none",
        ("project patches\nto 32 channels", "+ position", "encoder layer\n32 wide", "flatten", "linear"),
        "The feature map cut into patches; no prefix token.",
        "On CNN backbones, and wherever maps are large: the projection is most of its cost.",
    ),
    "density": Head(
        "all",
        "none",
        ("conv 3×3, 64\ndilated, ReLU", "conv 3×3, 64\ndilated, ReLU", "conv 1×1", "softplus"),
        "The patches as a map. The class token is ignored. It answers a map, for the task `density`.",
        "Where things are counted whose places are known, and there are too many to be told apart.",
    ),
    "lens": Head(
        "none",
        "read",
        ("LayerNorm,\nlinear", "+ token", "backbone's\nnorm", "backbone's\nclassifier"),
        'As `linear`; or what the head named by `of` reads, as in `options={"of": "gah"}`. Norm and classifier are '
        "copies of the backbone's, and stay as they are.",
        "On a trained backbone that stays frozen, where classes are many and samples few: a class without a sample can "
        "still be named. It needs tokens as wide as the classifier, as a ViT has them everywhere.",
    ),
}


def draw(name: str, head: Head, parameters: int, macs: float) -> None:
    """One picture: what is read on the left, what is done with it to the right."""
    figure, axes = pyplot.subplots(figsize=(9, 2.1), dpi=110)
    axes.set_xlim(0, 90)
    axes.set_ylim(0, 21)
    axes.axis("off")
    token = {"read": READ, "later": PART, "none": LEFT}[head.token]
    axes.add_patch(Rectangle((2, 14.2), 2.6, 2.6, facecolor=token, edgecolor=INK, linewidth=0.8))
    axes.text(5.4, 15.5, "class token", va="center", fontsize=7.5, color=INK)
    for row in range(4):
        for column in range(4):
            picked = head.patches in ("all", "squares") or (head.patches == "third" and row % 2 == column % 2 == 0)
            box = (2 + 2.8 * column, 10.4 - 2.8 * row)
            axes.add_patch(Rectangle(box, 2.6, 2.6, facecolor=READ if picked else LEFT, edgecolor=INK, linewidth=0.8))
    if head.patches == "squares":
        for row in range(2):
            for column in range(2):
                corner = (1.7 + 5.6 * column, 7.3 - 5.6 * row)
                axes.add_patch(Rectangle(corner, 6, 6, fill=False, edgecolor="#c2571a", linewidth=1.6))
    start, width, gap = 19.0, 0.0, 2.4
    width = (84 - start - gap * len(head.boxes)) / len(head.boxes)
    for i, words in enumerate(head.boxes):
        x = start + i * (width + gap)
        axes.annotate("", (x, 8), (x - gap, 8), arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1})
        shape = "round,pad=0,rounding_size=0.8"
        axes.add_patch(FancyBboxPatch((x, 4.5), width, 7, boxstyle=shape, facecolor="white", edgecolor=INK))
        small = 8 if len(head.boxes) < 5 else 6.8
        axes.text(x + width / 2, 8, words, ha="center", va="center", fontsize=small, color=INK)
    end = start + len(head.boxes) * (width + gap) - gap
    axes.annotate("", (end + gap, 8), (end, 8), arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1})
    axes.text(end + gap + 0.3, 8, "output", va="center", fontsize=8, color=INK)
    title = f"{name}   {parameters / 1e6:.2f} M parameters   {macs / 1e6:.1f} MMACs"
    axes.text(2, 19.4, title, va="center", fontsize=10, weight="bold", color=INK)
    figure.savefig(HERE / "heads" / f"{name}.png", bbox_inches="tight", facecolor="white")
    pyplot.close(figure)


def main() -> None:
    """Draw all heads and write the page."""
    costs = head_costs()
    assert costs.keys() == SHOWN.keys() == HEADS.keys()
    lines = [
        "# Heads",
        "",
        "What each head reads, what it costs and when to choose it. Written by `python docs/heads.py`; costs are for",
        "ViT-B/16 at 224 px and 100 classes, with default options, as `offramp list heads` prints them. `vit` is",
        "one block of ViT-B and a classifier, so its row tells what a block costs.",
        "",
        "| head | paper | parameters | MMACs |",
        "|---|---|---|---|",
    ]
    for name, (parameters, macs) in costs.items():
        lines.append(f"| [{name}](#{name}) | {HEADS[name].paper} | {parameters:,} | {macs / 1e6:,.1f} |")
    lines += [
        "",
        "In the pictures a dark square is a token that the head reads, a pale one is added or joined later, an empty",
        "one is not read. Where a backbone has no class token the mean of the patches takes its place; with a",
        "distillation token each head says what it does. Options are keyword arguments:",
        '`Exit(after=4, head="gah", options={"stride": 3})`.',
    ]
    for name, head in SHOWN.items():
        draw(name, head, *costs[name])
        lines += ["", f"## {name}", "", f"![{name}](heads/{name}.png)", "", f"**Reads.** {head.reads}", ""]
        lines += [f"**Choose it.** {head.choose}"]
    (HERE / "heads.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
