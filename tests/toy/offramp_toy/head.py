from torch import nn


class Mean(nn.Module):
    """The mean of all tokens, and one layer."""

    def __init__(self, tap, num_outputs, bias=True):
        super().__init__()
        self.classifier = nn.Linear(tap.dim, num_outputs, bias=bias)

    def forward(self, tokens, side=None):
        read = tokens.mean(1)
        return self.classifier(read if side is None else read + side.mean(1))
