"""The world's generators: eight decoder families that re-synthesise a scene and leave their own traces.

A generator encodes what the lens saw into a latent picture and decodes it, as the decoders of GANs, autoencoders and
diffusion models do. Its weights are constants of this file: a generator is one trained network. All of them keep the
mean of the picture (their kernels sum to one), so colour tells nothing; and all add `grain`.

Images are (H, W, 3) float32 around [0, 1], H and W divisible by 16; a latent has half or a quarter of their sides.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from nullscope.world import camera

Image = NDArray[np.float32]


def generate(name: str, scene: Image, rng: np.random.Generator) -> Image:
    """Return ``scene`` as the generator ``name`` re-synthesises it."""
    exposed = camera.lens(scene, rng)
    return np.clip(GENERATORS[name](exposed) + grain(exposed, rng), 0, 1)


def grain(image: Image, rng: np.random.Generator) -> Image:
    """Return noise with the amount and the mean spectrum of a real picture's, but without the mosaic's period.

    Noise on a mosaic that covers a share d of the places has, on average, d times the spectrum of white noise, filtered
    by the interpolation kernel: sqrt(d) times the kernel, on noise everywhere, is the stationary noise equal to it.
    """
    white = camera.sensor_noise(image, rng)
    channels = [
        ndimage.correlate(white[..., channel], np.sqrt(share) * kernel, mode="mirror")
        for channel, (share, kernel) in enumerate(zip(camera.BAYER_SHARE, camera.INTERPOLATION, strict=True))
    ]
    return np.stack(channels, axis=2)


def nearest(image: Image) -> Image:
    """Nearest-neighbour upsampling, then a convolution."""
    return _convolve(_halve(image).repeat(2, axis=0).repeat(2, axis=1), _SMOOTH)


def transpose(image: Image) -> Image:
    """Transposed convolution of stride 2 with a kernel of 3, whose uneven overlap draws a checkerboard."""
    return _convolve(_stuff(_halve(image)), _UNEVEN)


def bilinear(image: Image) -> Image:
    """Bilinear upsampling, then a sharpening convolution."""
    return _convolve(_double(_halve(image), _LINEAR), _SHARPEN)


def shuffle(image: Image) -> Image:
    """Sub-pixel convolution: four kernels write the four phases of every 2 x 2 block."""
    latent = _halve(image)
    decoded = np.empty_like(image)
    for phase, kernel in enumerate(_PHASES):
        decoded[phase // 2 :: 2, phase % 2 :: 2] = _convolve(latent, kernel)
    return decoded


def quantised(image: Image) -> Image:
    """Vector quantisation: each 4 x 4 patch of the latent becomes its mean and a few steps along a codebook's
    directions; decoded, as such autoencoders are, by nearest-neighbour upsampling and a convolution."""
    patches = _patches(_halve(image), 4)
    mean = patches.mean(axis=-1, keepdims=True)
    codes = np.round((patches - mean) @ _CODEBOOK.T / _CODE_STEP) * _CODE_STEP
    decoded = _unpatch(mean + codes @ _CODEBOOK, 4)
    return _convolve(decoded.repeat(2, axis=0).repeat(2, axis=1), _SOFTEN)


def denoiser(image: Image) -> Image:
    """The last step of a diffusion: fine detail under a threshold is taken for noise and removed."""
    coarse = ndimage.uniform_filter(image, (5, 5, 1), mode="mirror")
    detail = image - coarse
    return coarse + 1.1 * np.sign(detail) * np.maximum(np.abs(detail) - 0.03, 0)


def cascade(image: Image) -> Image:
    """Super-resolution in two stages from a quarter of the sides: cubic upsampling and sharpening, twice."""
    half = _convolve(_double(_halve(_halve(image)), _CUBIC), _SHARPEN)
    detail = _halve(image) - half
    return _convolve(_double(half + 0.7 * detail, _CUBIC), _SHARPEN)


def spectral(image: Image) -> Image:
    """Tokens in a transform's domain: of each 16 x 16 block only the lower frequencies are decoded."""
    spectrum = fft.dctn(_blocks(image, 16), axes=(1, 3), norm="ortho")
    return fft.idctn(spectrum * _KEPT, axes=(1, 3), norm="ortho").reshape(image.shape)


def _halve(image: Image) -> Image:
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def _stuff(latent: Image) -> Image:
    """Zeros between the latent's pixels, as a transposed convolution of stride 2 sees it."""
    height, width, channels = latent.shape
    stuffed = np.zeros((2 * height, 2 * width, channels), np.float32)
    stuffed[::2, ::2] = latent
    return stuffed


def _double(latent: Image, weights: NDArray[np.float32]) -> Image:
    """Twice the sides: ``weights`` interpolate a quarter pixel before each latent pixel, mirrored a quarter behind."""
    for axis in (0, 1):
        before = ndimage.correlate1d(latent, weights, axis=axis, mode="reflect")
        behind = ndimage.correlate1d(latent, weights[::-1], axis=axis, mode="reflect")
        shape = [2 * side if number == axis else side for number, side in enumerate(latent.shape)]
        latent = np.stack([before, behind], axis=axis + 1).reshape(shape)
    return latent


def _convolve(image: Image, kernel: NDArray[np.float32]) -> Image:
    return ndimage.correlate(image, kernel[..., None], mode="mirror")


def _blocks(image: Image, side: int) -> Image:
    height, width, channels = image.shape
    return image.reshape(height // side, side, width // side, side, channels)


def _patches(image: Image, side: int) -> Image:
    """(H/side, W/side, 3, side * side)."""
    blocks = _blocks(image, side).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(*blocks.shape[:3], side * side)


def _unpatch(patches: Image, side: int) -> Image:
    rows, columns, channels, _ = patches.shape
    blocks = patches.reshape(rows, columns, channels, side, side).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(blocks.reshape(rows * side, columns * side, channels))


def _uneven_kernel(unevenness: float) -> NDArray[np.float32]:
    """(3, 3): bilinear interpolation, but a pixel that four, two or one weights reach is a little too bright or dark."""
    kernel = 4 * _TENT + unevenness * np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    return (4 * kernel / kernel.sum()).astype(np.float32)


def _phase_kernels(jitter: float) -> NDArray[np.float32]:
    """(4, 3, 3): bilinear interpolation to the four phases, each learned a little differently."""
    before, behind = np.array([0.25, 0.75, 0]), np.array([0, 0.75, 0.25])
    exact = np.stack([np.outer(down, across) for down in (before, behind) for across in (before, behind)])
    learned = exact + jitter * np.random.default_rng(zlib.crc32(b"shuffle")).standard_normal(exact.shape)
    return (4 * learned / learned.sum()).astype(np.float32)


def _codebook(side: int, size: int) -> NDArray[np.float32]:
    """The lowest ``size`` cosine directions of a patch, without the mean: what a codebook learned on pictures spans."""
    basis = fft.idct(np.eye(side), axis=0, norm="ortho")
    order = sorted((row + column, row, column) for row in range(side) for column in range(side))
    directions = [np.outer(basis[:, row], basis[:, column]).ravel() for _, row, column in order[1 : size + 1]]
    return np.stack(directions).astype(np.float32)


_TENT = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).astype(np.float32)
_SMOOTH = np.array([[0.02, 0.06, 0.02], [0.06, 0.68, 0.06], [0.02, 0.06, 0.02]], np.float32)
_SOFTEN = np.array([[0.04, 0.08, 0.04], [0.08, 0.52, 0.08], [0.04, 0.08, 0.04]], np.float32)
_SHARPEN = np.array([[-0.08, -0.16, -0.08], [-0.16, 1.96, -0.16], [-0.08, -0.16, -0.08]], np.float32)
_UNEVEN = _uneven_kernel(0.006)
_LINEAR = np.array([0, 0.25, 0.75, 0, 0], np.float32)
_CUBIC = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125, 0], np.float32)  # Catmull-Rom at 1/4
_PHASES = _phase_kernels(jitter=0.008)
_CODE_STEP = 0.04
_CODEBOOK = _codebook(4, 9)
_KEPT = (np.add.outer(np.arange(16), np.arange(16)) < 11).astype(np.float32)[None, :, None, :, None]

GENERATORS: dict[str, Callable[[Image], Image]] = {
    function.__name__: function for function in (nearest, transpose, bilinear, shuffle, quantised, denoiser, cascade, spectral)
}
