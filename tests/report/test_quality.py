"""What is said of scores, against formulas written out."""

import pytest
import torch
from helpers import random_table
from sklearn.metrics import roc_auc_score

from offramp.report import exit_quality
from offramp.tasks import Classification, Counting


def test_quality_of_scores():
    table = random_table(500)
    rows = exit_quality(table, Classification())
    assert len(rows) == 4
    for row, output in zip(rows, table.outputs, strict=True):
        p = output.softmax(1)
        right = p.argmax(1) == table.targets
        assert row["auroc"] == pytest.approx(roc_auc_score(right, p.amax(1)), abs=1e-5)
        truth = torch.nn.functional.one_hot(table.targets, 5)
        assert row["brier"] == pytest.approx(float(((p - truth) ** 2).sum(1).mean()), abs=1e-5)
        bins = (p.amax(1) * 15).long().clamp(max=14)
        gaps = [
            abs(float(p.amax(1)[bins == b].mean() - right[bins == b].float().mean()))
            * float((bins == b).float().mean())
            for b in range(15)
            if (bins == b).any()
        ]
        assert row["ece"] == pytest.approx(sum(gaps), abs=1e-4)


def test_all_right_has_no_auroc_and_numbers_have_nothing():
    table = random_table(20)
    outputs = torch.nn.functional.one_hot(table.targets, 5).float()[None].expand(4, -1, -1)
    perfect = type(table)(outputs, table.targets, table.after, table.heads, table.task)
    assert exit_quality(perfect, Classification())[0]["auroc"] is None
    assert exit_quality(table, Counting())[0] == {"auroc": None, "ece": None, "brier": None}
