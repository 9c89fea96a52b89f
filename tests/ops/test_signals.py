"""Residuals, wavelets and spectra against SciPy, PyWavelets and direct loops, in float64."""

import numpy as np
import pytest
import pywt
import torch
from scipy import fft, ndimage

from nullscope.ops.channel_attention import WindowChannelAttention
from nullscope.ops.dct_windows import WEIGHTS, grades
from nullscope.ops.frequency import high_pass_channels, high_pass_space, spectral_convolution
from nullscope.ops.residuals import GRADIENTS, gradient, neighbour_residual
from nullscope.ops.srm import srm_kernels
from nullscope.ops.wavelets import diagonal_band, haar, inverse_haar

SIZES = [(8, 12), (7, 9), (16, 16), (10, 3), (2, 2)]


def images(height, width, channels=3, batch=2):
    return np.random.default_rng(height * 100 + width).standard_normal((batch, channels, height, width))


@pytest.mark.parametrize("size", SIZES)
def test_each_pixel_loses_the_top_left_one_of_its_cell(size):
    x = images(*size)
    found = neighbour_residual(torch.from_numpy(x)).numpy()
    height, width = (side // 2 * 2 for side in size)
    assert found.shape == (2, 3, height, width)
    for row in range(height):
        for column in range(width):
            expected = x[:, :, row, column] - x[:, :, row // 2 * 2, column // 2 * 2]
            assert np.array_equal(found[:, :, row, column], expected)


@pytest.mark.parametrize("name", GRADIENTS)
def test_derivatives_are_correlations_that_see_zeros_beyond_the_border(name):
    x = images(9, 7)
    found = gradient(torch.from_numpy(x), name).numpy()
    kernel = np.array(GRADIENTS[name])
    expected = [[ndimage.correlate(channel, kernel, mode="constant") for channel in image] for image in x]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert abs(kernel.sum()) == 0  # none sees a flat area


@pytest.mark.parametrize("size", [(8, 12), (16, 4), (2, 2)])
def test_haars_bands_are_those_of_pywavelets_and_give_the_image_back(size):
    x = images(*size)
    bands = haar(torch.from_numpy(x))
    low, (horizontal, vertical, diagonal) = pywt.dwt2(x, "haar", axes=(2, 3))
    np.testing.assert_allclose(bands.numpy(), np.stack([low, horizontal, vertical, diagonal], axis=2), atol=1e-12)
    np.testing.assert_allclose(inverse_haar(bands).numpy(), x, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (256, 255), (10, 3), (6, 5)])
def test_the_diagonal_band_is_pywavelets_bior13_with_symmetric_extension(size):
    x = images(*size)
    _, (_, _, expected) = pywt.dwt2(x, "bior1.3", mode="symmetric", axes=(2, 3))
    found = diagonal_band(torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (16, 16), (12, 5)])
def test_the_high_pass_takes_the_middle_half_of_the_shifted_spectrum_away(size):
    """With the loop's own Fourier transform: a sum over all pixels for each frequency."""
    x = images(*size, channels=1, batch=1)[0, 0]
    height, width = size
    rows, columns = np.arange(height), np.arange(width)
    forward_rows = np.exp(-2j * np.pi * np.outer(rows, rows) / height)
    forward_columns = np.exp(-2j * np.pi * np.outer(columns, columns) / width)
    spectrum = np.roll(forward_rows @ x @ forward_columns, (height // 2, width // 2), (0, 1))
    spectrum[height // 2 - height // 4 : height // 2 + height // 4, width // 2 - width // 4 : width // 2 + width // 4] = 0
    spectrum = np.roll(spectrum, (-(height // 2), -(width // 2)), (0, 1))
    back = (forward_rows.conj() @ spectrum @ forward_columns.conj() / (height * width)).real
    found = high_pass_space(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(found, np.maximum(back, 0), atol=1e-12)


def test_the_high_pass_along_channels_is_that_of_space_on_one_axis():
    x = images(4, 5, channels=16)
    found = high_pass_channels(torch.from_numpy(x)).numpy()
    spectrum = np.fft.fftshift(np.fft.fft(x, axis=1), axes=1)
    spectrum[:, 4:12] = 0
    np.testing.assert_allclose(found, np.maximum(np.fft.ifft(np.fft.ifftshift(spectrum, axes=1), axis=1).real, 0), atol=1e-12)


def test_a_spectral_convolution_mixes_the_channels_of_every_frequency():
    x = torch.from_numpy(images(6, 7, channels=3))
    rng = np.random.default_rng(0)
    real, imaginary = (torch.from_numpy(rng.standard_normal((4, 3, 1, 1))) for _ in range(2))
    spectrum = np.fft.fft2(x.numpy())
    mixed = np.einsum("kc,bchw->bkhw", real[:, :, 0, 0], spectrum.real)
    mixed = mixed + 1j * np.einsum("kc,bchw->bkhw", imaginary[:, :, 0, 0], spectrum.imag)
    expected = np.maximum(np.fft.ifft2(mixed).real, 0)
    np.testing.assert_allclose(spectral_convolution(x, real, imaginary).numpy(), expected, atol=1e-12)


def test_gradients_go_through_the_spectrum():
    x = torch.from_numpy(images(6, 8)).requires_grad_()
    assert torch.autograd.gradcheck(high_pass_space, (x,), atol=1e-6)
    assert torch.autograd.gradcheck(diagonal_band, (x,), atol=1e-6)


@pytest.mark.parametrize(("size", "window"), [((8, 8), 4), ((4, 12), 4), ((10, 9), 4)])
def test_attention_between_channels_is_a_loop_over_windows(size, window):
    torch.manual_seed(0)
    module = WindowChannelAttention(3, window).double()
    x = torch.from_numpy(images(*size))
    qkv = module.qkv_dwconv(module.qkv(x))
    below, right = -size[0] % window, -size[1] % window
    qkv = torch.from_numpy(np.pad(qkv.detach().numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect"))
    mixed = torch.zeros(2, 3, size[0] + below, size[1] + right, dtype=torch.float64)
    for image in range(2):
        for top in range(0, mixed.shape[2], window):
            for left in range(0, mixed.shape[3], window):
                part = qkv[image, :, top : top + window, left : left + window].reshape(9, -1)
                query, key, value = part[:3], part[3:6], part[6:]
                weights = torch.softmax(module.temperature[0] * (query @ key.T), dim=1)
                seen = (weights @ value) * torch.nn.functional.gelu(module.mlp[0](value))
                mixed[image, :, top : top + window, left : left + window] = seen.reshape(3, window, window)
    expected = module.project_out(mixed[:, :, : size[0], : size[1]])
    torch.testing.assert_close(module(x), expected, atol=1e-12, rtol=0)


# AIDE's windows and kernels


def test_grades_are_the_weighed_logarithms_of_scipys_cosine_transform():
    """Window by window, coefficient by coefficient, as the bands are described."""
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found = grades(image)
    expected = []
    for top in range(0, 50 - 31, 16):
        for left in range(0, 70 - 31, 16):
            window = image[top : top + 32, left : left + 32].astype(np.float64) / 255
            size = np.abs(fft.dctn(window, axes=(0, 1), norm="ortho"))
            grade = 0.0
            for band in range(6):
                inside = [(i, j) for i in range(32) for j in range(32) if 64 * band <= 6 * (i + j) <= 64 * (band + 1)]
                grade += 2**band * sum(np.log(size[place] + 1).sum() for place in inside) / len(inside)
            expected.append(grade)
    assert len(expected) == 2 * 3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def test_bands_have_the_sizes_of_the_published_filters():
    """66, 187, 306, 286, 165 and 45 coefficients; those with i + j = 32 are in two bands."""
    i_plus_j = np.add(*np.mgrid[:32, :32])
    sizes = [((6 * i_plus_j >= 64 * band) & (6 * i_plus_j <= 64 * (band + 1))).sum() for band in range(6)]
    assert sizes == [66, 187, 306, 286, 165, 45]
    assert np.isclose(WEIGHTS[0, 0], 1 / 66) and np.isclose(WEIGHTS[0, 31], 4 / 306) and np.isclose(WEIGHTS[31, 31], 32 / 45)
    assert np.isclose(WEIGHTS[16, 16], 4 / 306 + 8 / 286)


def test_srm_kernels_leave_nothing_of_what_they_predict():
    """Constants vanish under all of them, slopes under those of second order and higher."""
    kernels = srm_kernels().double().numpy()
    assert kernels.shape == (30, 5, 5) and (kernels[:, 2, 2] == -1).all()
    np.testing.assert_allclose(kernels.sum((1, 2)), 0, atol=1e-6)
    rows, columns = np.mgrid[-2:3, -2:3]
    for slope in (rows, columns):
        np.testing.assert_allclose((kernels[8:] * slope).sum((1, 2)), 0, atol=1e-6)
    assert len({kernel.tobytes() for kernel in kernels}) == 30
    assert np.abs(kernels[28][[0, -1]]).sum() == 0, "the square of 3 x 3 stands within a border"
