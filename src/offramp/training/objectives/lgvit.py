"""LGViT's two stages: everything by alternating, then the heads alone by distillation (2308.00255)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp._batches import Inputs
from offramp.data import Samples, Stream
from offramp.errors import UsageError
from offramp.heads._grid import to_map, to_tokens
from offramp.heads.gah import GAH
from offramp.heads.lph import LPH
from offramp.model import EarlyExitModel
from offramp.training._modes import check_one_path
from offramp.training.objective import Batch, Stage
from offramp.training.objectives.alternating import AlternatingWeighted


class LGViT:
    """Alternating, depth-weighted training of everything, then distillation into the heads (2308.00255).

    Args:
        share: how much of the epochs the first stage has; the released scripts train 50 epochs in each.
        faithful: compute as the released code does, faults included; see ``HeadDistillation``.
        distillation: arguments for ``HeadDistillation``.
    """

    def __init__(self, share: float = 0.5, faithful: bool = False, **distillation: float) -> None:
        self.share = share
        self.second = HeadDistillation(faithful=faithful, **distillation)

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """Two. Raises ``UsageError`` for a model with several paths."""
        check_one_path(model, "lgvit")
        return [Stage(AlternatingWeighted(), self.share), Stage(self.second, 1 - self.share)]


class HeadDistillation:
    """LGViT's second stage: the backbone is frozen and teaches the heads (2308.00255, as its released code computes).

    Loss: (1 − alpha) · Σ cross-entropy + alpha · Σ prediction distillation, over the early exits, unweighted,
    + beta · heterogeneous + gamma · homogeneous feature distillation. *Heterogeneous*: the patch tokens of the last
    block teach the tokens of the first and the last local head and of the first and the last global head (KL of a
    softmax over channels, summed over tokens, mean over samples; sub-sampled as the global head does). *Homogeneous*:
    the last local head teaches the others (mean squared error of tokens), the last global head the others (the same of
    channel × channel Gram matrices). Heads without token features (all but ``lph`` and ``gah``), and those whose tokens
    do not have the width or grid of the last block's, get the prediction terms alone: our choice.

    Four faults of the released code are corrected: the final exit's answer is taken after the backbone's last norm;
    teaching heads are detached; prediction distillation is a mean over samples, not also over classes; patch tokens are
    what follows the prefix tokens, however many there are. ``faithful=True`` brings the first three back. The fourth
    changes no number: the released code counts two prefix tokens, which is right for DeiT and stops it on other models.

    Args:
        alpha: share of prediction distillation.
        beta: weight of heterogeneous feature distillation.
        gamma: weight of homogeneous feature distillation.
        temperature: of prediction distillation.
        faithful: with the faults of the released code; needs a backbone with a ``norm``.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.01,
        gamma: float = 0.01,
        temperature: float = 2.0,
        faithful: bool = False,
    ) -> None:
        self.alpha, self.beta, self.gamma, self.temperature = alpha, beta, gamma, temperature
        self.faithful = faithful

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """The heads. Raises ``UsageError`` where there are none, or for ``faithful`` where it has no meaning."""
        if len(model.heads) == 0:
            raise UsageError("this stage trains heads only, and the model has no early exits")
        check_one_path(model, "LGViT's second stage")
        if self.faithful and not hasattr(model.backbone.model, "norm"):
            raise UsageError("faithful=True skips the backbone's last norm as LGViT's code does, and here is none")
        return model.heads.parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The loss and its three parts."""
        with torch.no_grad():
            states, teacher = self._backbone(model, batch.inputs)
        outputs: list[Tensor] = []
        features: list[Tensor | None] = []
        for k, (head, state) in enumerate(zip(model.heads, states, strict=False)):
            if isinstance(head, LPH | GAH):
                read = model.tokens(k, state)
                features.append(head.features(read))
                outputs.append(head.readout(features[-1], read, None))
            else:
                features.append(None)
                outputs.append(model.head(k, state))
        prediction = self._prediction(model, outputs, teacher, batch.targets)
        heterogeneous = self._heterogeneous(model, features, model.tokens(len(states) - 1, states[-1]))
        homogeneous = self._homogeneous(model, features)
        return {
            "loss": prediction + self.beta * heterogeneous + self.gamma * homogeneous,
            "prediction": prediction,
            "heterogeneous": heterogeneous,
            "homogeneous": homogeneous,
        }

    def _backbone(self, model: EarlyExitModel, x: Inputs) -> tuple[list[Any], Tensor]:
        """The state that each exit reads, that after the last block last; and the final exit's answer."""
        states = [h for _, h in model.states(x)]
        with _without_norm(model.backbone.model) if self.faithful else nullcontext():
            return states, model.final(states[-1])

    def _prediction(self, model: EarlyExitModel, outputs: list[Tensor], teacher: Tensor, target: Tensor) -> Tensor:
        true = torch.stack([model.task.loss(output, target) for output in outputs]).sum()
        taught = torch.stack([model.task.distillation(output, teacher, self.temperature) for output in outputs]).sum()
        if self.faithful:
            taught = taught / model.num_outputs
        return (1 - self.alpha) * true + self.alpha * taught

    def _heterogeneous(self, model: EarlyExitModel, features: list[Tensor | None], last: Tensor) -> Tensor:
        end = model.backbone.taps[-1]
        loss = last.new_zeros(())
        for kind in (LPH, GAH):
            own = _indices(model, kind)
            for k in sorted({*own[:1], *own[-1:]}):
                head, student = model.heads[k], features[k]
                stride = head.stride if isinstance(head, GAH) else 1
                teacher = to_tokens(to_map(last, end)[:, :, ::stride, ::stride])
                if student is not None and student.shape == teacher.shape:
                    loss = loss + _channel_divergence(student, teacher)
        return loss

    def _homogeneous(self, model: EarlyExitModel, features: list[Tensor | None]) -> Tensor:
        loss = torch.zeros((), device=next(model.parameters()).device)
        for kind in (LPH, GAH):
            own = [f for k in _indices(model, kind) if (f := features[k]) is not None]
            for student in own[:-1]:
                teacher = own[-1] if self.faithful else own[-1].detach()
                if kind is LPH and student.shape == teacher.shape:
                    loss = loss + functional.mse_loss(student.float(), teacher.float())
                elif kind is GAH and student.shape[2] == teacher.shape[2]:
                    loss = loss + _gram_loss(student, teacher)
        return loss


def _indices(model: EarlyExitModel, kind: type[nn.Module]) -> list[int]:
    return [k for k, head in enumerate(model.heads) if isinstance(head, kind)]


def _channel_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of the softmax over channels of tokens ``(B, n, C)``: sum over tokens, mean over batch."""
    own, given = (tokens.float().log_softmax(2) for tokens in (student, teacher))
    return functional.kl_div(own, given, reduction="batchmean", log_target=True)


def _gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the channel × channel Gram matrices of tokens ``(B, n, C)``."""
    own, given = (tokens.float().transpose(1, 2) @ tokens.float() for tokens in (student, teacher))
    return functional.mse_loss(own, given)


@contextmanager
def _without_norm(inner: Any) -> Iterator[None]:
    """Inside, the last norm of a timm model hands on what it gets."""
    norms = [norm for name in ("norm", "fc_norm") if isinstance(norm := getattr(inner, name, None), nn.Module)]
    hooks = [norm.register_forward_hook(lambda _, inputs, output: inputs[0]) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
