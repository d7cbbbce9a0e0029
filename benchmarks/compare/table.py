"""The comparison as Markdown, from its JSON: python -m benchmarks.compare.table (what docs/training.md shows)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks import RESULTS


def heads_table(result: Mapping[str, Any]) -> str:
    """Heads on one frozen backbone: accuracy of each exit, mean ± deviation over seeds."""
    first = next(iter(result["heads"]["rows"].values()))
    after = [str(e["after"]) for e in first["exits"][:-1]]
    rows = [
        "| head | parameters | MMACs of the first | "
        + " | ".join(f"after {a}" for a in after)
        + " | at 2× MACs | area |",
        "|---|---|---|" + "---|" * (len(after) + 2),
    ]
    for head, row in result["heads"]["rows"].items():
        cells = [_spread(e["accuracy"]) for e in row["exits"][:-1]]
        cells += [_spread(row["at_macs_speedup"]["2.0"]), _spread(row["area"])]
        macs = f"{row['exits'][0]['macs'] / 1e6:.2f}"
        rows.append(f"| `{head}` | {row['head_parameters']:,} | {macs} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def methods_table(result: Mapping[str, Any]) -> str:
    """Ways of training × heads: accuracy of first, middle and final exit, and at three MACs speed-ups."""
    rows = ["| heads | trained by | first exit | fifth exit | final | 1.5× | 2× | 2.5× | area |", "|---" * 9 + "|"]
    named = [
        (("LGViT layout" if layout == "lgvit" else layout), method, row)
        for layout, methods in result["methods"].items()
        for method, row in methods.items()
    ]
    named += [
        ("LGViT layout", "lgvit, faithful", result["faithful_lgvit"]),
        ("linear", "**recommended**", result["recommended"]),
    ]
    for layout, method, row in named:
        exits = [row["exits"][i]["accuracy"] for i in (0, 4, -1)]
        at = [row["at_macs_speedup"][s] for s in ("1.5", "2.0", "2.5")]
        cells = [f"{100 * a:.1f}" for a in exits]
        cells += ["–" if a is None else f"{100 * a['accuracy']:.1f}" for a in at]
        cells.append("–" if row["area"] is None else f"{100 * row['area']:.1f}")
        rows.append(f"| {layout} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def static_table(result: Mapping[str, Any]) -> str:
    """Static networks, and the recommended dynamic model at the smaller one's MACs."""
    small = result["smaller_static"]
    rows = [
        "| network | MMACs | accuracy | 95 % interval |",
        "|---|---|---|---|",
        *(
            f"| static, {row['blocks']} blocks | {row['macs'] / 1e6:.1f} | {_interval(row)}"
            for row in (result["static"], small)
        ),
    ]
    dynamic = small["dynamic"]
    macs = result["static"]["macs"] / dynamic["macs_speedup"] / 1e6
    return "\n".join([*rows, f"| dynamic, recommended, on average | {macs:.1f} | {_interval(dynamic)}"])


def _spread(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{100 * value['mean']:.1f} ± {100 * value['deviation']:.1f}"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.2f} | {100 * low:.2f} to {100 * high:.2f} |"


if __name__ == "__main__":
    found = json.loads((RESULTS / "compare.json").read_text())
    print("\n\n".join(table(found) for table in (heads_table, methods_table, static_table)))
