"""How likely an answer is to be right, in place of whether it was."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

_STRENGTH = 0.1
"""Of the fit: the inverse of its penalty, as scikit-learn has it. Its weight fades as samples become more."""
_LEAST, _MOST = 1e-2, 1 - 1e-6
"""Between which a score is read: near 0 nothing is told apart, and log odds would blow roundings up."""
_FAR = 3.0
"""Standard deviations beyond which the square of a score does not grow."""


def smoothed(quality: Tensor, scores: Tensor) -> Tensor:
    """For each exit the chance that its answer is right, given how sure all exits are.

    A search that reads whether each answer *was* right finds the thresholds that luck favours: asked to lose half a
    point on 1,000 samples, policies of eleven exits lost two on new ones. Chances that one smooth function of all
    scores gives cannot follow single samples, so what is lost on them is nearly what is lost on others. The function is
    a logistic regression on the log odds of every exit's score and their squares, one for each exit; its mean is that
    of the answers. This is our choice and stands in no paper; ``python -m benchmarks.promised`` shows what it is worth.

    Args:
        quality: ``(exits + 1, samples)``; a row that is not made of 0 and 1, as for numbers, is returned as it is.
        scores: of all exits, the final one among them, ``(exits + 1, samples)``.

    Returns:
        ``(exits + 1, samples)``.
    """
    odds = scores.double().clamp(_LEAST, _MOST).logit().T.numpy()
    odds = StandardScaler().fit_transform(odds)
    features = np.concatenate([odds, odds.clip(-_FAR, _FAR) ** 2], axis=1)
    return torch.stack([_chances(row, features) for row in quality])


def _chances(right: Tensor, features: np.ndarray) -> Tensor:
    if right.unique().tolist() != [0, 1]:
        return right
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=1000))
    return torch.from_numpy(fit.fit(features, right.numpy()).predict_proba(features)[:, 1]).to(right.dtype)
