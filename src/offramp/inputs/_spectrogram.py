"""The log-mel image inside an exported file, as torchaudio makes it outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.inputs._sound import library

FLOOR = 1e-6
"""What is added to a power before its logarithm is taken."""


class Spectrogram(nn.Module):
    """Windows of sound to normalised log-mel images.

    The Fourier transform is one convolution with windowed sines and cosines: runtimes differ in whether they know
    ONNX's own (and no two agree on its padding), and agree on convolutions. It takes ``frames · n_fft²`` multiply-adds.

    Args:
        size: channels, mel bands, frames.
        rate: in hertz.
        n_fft: samples of a frame.
        hop: samples from frame to frame.
        bounds: the lowest and the highest frequency of the bands, in hertz.
        mean: of the logarithms, taken off.
        std: by which they are divided.
    """

    waves: Tensor
    bands: Tensor

    def __init__(
        self,
        size: tuple[int, int, int],
        rate: int,
        n_fft: int,
        hop: int,
        bounds: tuple[float, float],
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        self.size, self.hop, self.n_fft = size, hop, n_fft
        self.mean, self.std = mean, std
        half = n_fft // 2 + 1
        times = torch.arange(n_fft, dtype=torch.float64)
        # whole turns are left out before the sine is taken, or large angles cost digits
        angles = torch.outer(torch.arange(half, dtype=torch.float64), times).remainder(n_fft)
        angles = angles * (2 * torch.pi / n_fft)
        shape = torch.hann_window(n_fft, dtype=torch.float64)
        waves = torch.cat([angles.cos() * shape, angles.sin() * shape])
        self.register_buffer("waves", waves[:, None].float())
        bands = library("torchaudio").functional.melscale_fbanks(half, *bounds, size[1], rate)
        self.register_buffer("bands", bands.T.contiguous())

    def forward(self, windows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Float32 ``(B, samples)`` to ``(B, C, n_mels, frames)``."""
        edge = self.n_fft // 2
        padded = functional.pad(windows[0][:, None], (edge, edge), mode="reflect")
        found = functional.conv1d(padded, self.waves, stride=self.hop)[:, :, : self.size[2]]
        real, imaginary = found.chunk(2, dim=1)
        power = self.bands @ (real * real + imaginary * imaginary)
        image = ((power + FLOOR).log() - self.mean) / self.std
        return (image[:, None].expand(-1, self.size[0], -1, -1),)
