"""Batches of noise with exits that are fixed beforehand, to given shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from offramp._batches import Inputs, to
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed
from offramp.policies.forced import Forced, forced_shares


class ForcedWork:
    """A model's exits forced to given shares, for batches of any size.

    Where the model has a router it runs, and its word counts: a bias is chosen with which it sends as many samples to
    each path as leave there, and each leaves at an exit of the path where it entered. Noise has no hard samples, so who
    goes where means nothing; what it costs does.

    Args:
        model: the model.
        shares: of the samples that leave at each exit, the final exit last.
        asked: the exits whose heads run; all if not given.

    Raises:
        UsageError: not one share for each exit, shares that do not sum to 1, or one for an exit that is not asked.
    """

    def __init__(self, model: EarlyExitModel, shares: Sequence[float], asked: tuple[int, ...] | None = None) -> None:
        exits = len(model.exits)
        if len(shares) != exits + 1:
            raise UsageError(f"{len(shares)} shares for {exits} early exits and the final one")
        self.model, self.shares, self.asked = model, shares, asked
        forced_shares(shares, 1)
        self._forced([k for k, share in enumerate(shares) if share > 0])

    def batches(self, batch: int, number: int) -> Iterator[tuple[Inputs, Policy]]:
        """So many batches, each with its policy; together they hold the shares, as closely as whole samples allow."""
        generator = torch.Generator().manual_seed(0)
        count = batch * number
        order = torch.tensor(forced_shares(self.shares, count).exits)[torch.randperm(count, generator=generator)]
        examples = [self.model.input.example(batch, generator) for _ in range(number)]
        bias: tuple[float, ...] = ()
        if self.model.router is not None:
            device = next(self.model.parameters()).device
            with torch.inference_mode():
                said = torch.cat([self.model.route(to(x, device))[0].float().cpu() for x in examples])
            bias = self._bias(said)
            order = self._on_paths(order, (said + torch.tensor(bias)).max(1).indices)
        for x, exits in zip(examples, order.split(batch), strict=True):
            inner = self._forced(exits.tolist())
            yield x, Routed(inner, bias) if bias else inner

    def fixed(self, batch: int) -> Policy:
        """A policy for one batch of any samples, whatever a router says of them: each enters where it leaves."""
        exits = forced_shares(self.shares, batch).exits
        entries = tuple(self.model.chain.paths[k] for k in exits) if self.model.router is not None else None
        return self._forced(exits, entries)

    def _forced(self, exits: Sequence[int], entries: tuple[int, ...] | None = None) -> Forced:
        return Forced(tuple(exits), len(self.model.exits), self.model.task.scores[0], self.asked, entries)

    def _bias(self, said: Tensor) -> tuple[float, ...]:
        """With which the router sends the shares of the paths there, one path after the other."""
        chain, bias = self.model.chain, [0.0]
        known = sum(self.shares[: chain.ends[0] + 1])
        for path in range(1, chain.num_paths):
            share = sum(self.shares[chain.starts[path] : chain.ends[path] + 1])
            known += share
            other = (said[:, :path] + torch.tensor(bias)).max(1).values
            lead = (said[:, path] - other).sort(descending=True).values
            send = round(share / known * len(lead)) if known else 0
            if send == 0:
                cut = float(lead[0]) + 1
            elif send == len(lead):
                cut = float(lead[-1]) - 1
            else:
                cut = float(lead[send - 1] + lead[send]) / 2
            bias.append(-cut)
        return tuple(bias)

    def _on_paths(self, order: Tensor, entered: Tensor) -> Tensor:
        """For each row an exit of the path where it entered, in the shares that this path has."""
        chain, found = self.model.chain, order.clone()
        for path, (start, end) in enumerate(zip(chain.starts, chain.ends, strict=True)):
            rows = (entered == path).nonzero()[:, 0]
            own = self.shares[start : end + 1]
            if len(rows):  # a path that the router chose and no share speaks of is left at its end
                whole = sum(own)
                parts = [share / whole for share in own] if whole else [0.0] * (end - start) + [1.0]
                exits = torch.tensor(forced_shares(parts, len(rows)).exits) + start
                found[rows] = exits[torch.randperm(len(rows), generator=torch.Generator().manual_seed(path))]
        return found
