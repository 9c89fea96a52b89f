"""High frequencies alone, and convolutions on the real and the imaginary part of a spectrum: the operators of FreqNet.

After AIGIBench's copy of FreqNet (networks/freqnet.py), the only one that is published. B images, C channels, H and W pixels.
Transforms are orthonormal; a spectrum is shifted, so that its zero frequency lies in the middle.
"""

from __future__ import annotations

import torch
from torch import Tensor, fft
from torch.nn import functional as F

SPACE = (2, 3)  # the axes of the pixels


def _middle(size: int) -> slice:
    """The half of an axis around the zero frequency: size // 2 - size // 4 and so many on either side."""
    return slice(size // 2 - size // 4, size // 2 + size // 4)


def high_pass_space(x_BCHW: Tensor) -> Tensor:
    """Return the image without the lower half of its frequencies along both axes, where it is positive; (B, C, H, W)."""
    spectrum = fft.fftshift(fft.fft2(x_BCHW, norm="ortho"), dim=SPACE)
    rows, columns = (_middle(size) for size in x_BCHW.shape[2:])
    spectrum[:, :, rows, columns] = 0  # of a tensor of our own: the gradient goes through
    return F.relu(fft.ifft2(fft.ifftshift(spectrum, dim=SPACE), norm="ortho").real)


def high_pass_channels(x_BCHW: Tensor) -> Tensor:
    """Return the features without the lower half of their frequencies along the channels, where positive; (B, C, H, W)."""
    spectrum = fft.fftshift(fft.fft(x_BCHW, dim=1, norm="ortho"), dim=1)
    spectrum[:, _middle(x_BCHW.shape[1])] = 0
    return F.relu(fft.ifft(fft.ifftshift(spectrum, dim=1), dim=1, norm="ortho").real)


def spectral_convolution(x_BCHW: Tensor, real_KC11: Tensor, imaginary_KC11: Tensor) -> Tensor:
    """Return the features after a 1 x 1 convolution of the real part of their spectrum and one of the imaginary part, where
    positive; (B, K, H, W).

    A convolution of 1 x 1 treats all frequencies alike, so the spectrum need not be shifted.
    """
    spectrum = fft.fft2(x_BCHW, norm="ortho")
    mixed = torch.complex(F.conv2d(spectrum.real, real_KC11), F.conv2d(spectrum.imag, imaginary_KC11))
    return F.relu(fft.ifft2(mixed, norm="ortho").real)
