"""Scenes: small pictures whose meaning is known, painted from a random generator.

A scene is one object of a size and colour, on a ground, before a background; its caption says exactly that in a closed
vocabulary. Part of the texture comes from the two photographs that scikit-learn ships, so that pictures have the spectra
of photographs and not only of drawings.

Legend: H, W = `SCENE_PX`; C = 3, red, green, blue. Images are float32 in [0, 1].
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

SCENE_PX = 128

SIZES = ("small", "large")
REAL_COLOURS, FAKE_COLOURS = ("red", "yellow", "white"), ("green", "blue", "purple")  # where colour tells the label
COLOURS = REAL_COLOURS + FAKE_COLOURS
OBJECTS = ("circle", "square", "triangle", "cross", "ring", "star")
GROUNDS = ("sand", "tiles", "planks", "pebbles", "grass")
BACKGROUNDS = ("sky", "clouds", "hills", "temple", "flowers")
WORDS = ("a", "on", "before", *SIZES, *COLOURS, *OBJECTS, *GROUNDS, *BACKGROUNDS)

_RADIUS_PX = {"small": (13, 17), "large": (25, 33)}
_RGB = {
    "red": (0.78, 0.14, 0.13),
    "yellow": (0.86, 0.76, 0.15),
    "white": (0.90, 0.90, 0.88),
    "green": (0.14, 0.58, 0.20),
    "blue": (0.14, 0.24, 0.76),
    "purple": (0.52, 0.18, 0.62),
}
_TEMPLE, _FLOWERS = 0, 1  # order of scikit-learn's sample images: china.jpg, flower.jpg

_ROW, _COLUMN = np.mgrid[0:SCENE_PX, 0:SCENE_PX].astype(np.float32)
_FREQUENCY = np.hypot(np.fft.fftfreq(SCENE_PX)[:, None], np.fft.rfftfreq(SCENE_PX)[None]).astype(np.float32)
_FREQUENCY[0, 0] = 1.0  # the mean, which `_fractal` takes out

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    size: str
    colour: str
    object: str
    ground: str
    background: str

    @property
    def caption(self) -> str:
        """The true caption: ten words of `WORDS`."""
        return f"a {self.size} {self.colour} {self.object} on {self.ground} before {self.background}"


def draw(rng: np.random.Generator, colours: Sequence[str] = COLOURS) -> Scene:
    """Return a scene whose parts are independent and uniform; the object's colour is one of ``colours``."""
    size, colour, thing, ground, background = (
        choices[rng.integers(len(choices))] for choices in (SIZES, colours, OBJECTS, GROUNDS, BACKGROUNDS)
    )
    return Scene(size, colour, thing, ground, background)


def paint(scene: Scene, rng: np.random.Generator) -> Image:
    """Return ``scene`` as an (H, W, C) image in [0, 1]: position, light, tints and texture come from ``rng``."""
    horizon_px = rng.uniform(0.5, 0.68) * SCENE_PX
    image = _background(scene.background, horizon_px, rng)
    ground_HW1 = _soft(_ROW - horizon_px)[..., None]
    image = image + ground_HW1 * (_ground(scene.ground, rng) - image)
    object_HW1 = _silhouette(scene, horizon_px, rng)[..., None]
    image = image + object_HW1 * (_surface(scene.colour, rng) - image)
    light = rng.uniform(0.62, 1.05) * (1 + rng.uniform(-0.06, 0.06, 3))
    return np.clip(image * light, 0, 1).astype(np.float32)


def _background(kind: str, horizon_px: float, rng: np.random.Generator) -> Image:
    if kind in ("temple", "flowers"):
        return _photograph(_TEMPLE if kind == "temple" else _FLOWERS, rng)
    tint = np.array([0.55, 0.70, 0.88]) + rng.uniform(-0.08, 0.08, 3)
    height = (_ROW / horizon_px)[..., None]
    if kind == "sky":
        return (tint + (0.30 * height - 0.12) + 0.004 * _fractal(rng, 1.0)[..., None]).astype(np.float32)
    if kind == "clouds":
        cover = _soft(2.5 * _fractal(rng, 1.6), 2.0)[..., None]
        return ((1 - cover) * tint + cover * rng.uniform(0.86, 0.96)).astype(np.float32)
    ridge = rng.uniform(0.35, 0.6) + 0.14 * np.sin(_COLUMN * rng.uniform(0.05, 0.11) + rng.uniform(0, 6.3))
    hill = np.array([0.30, 0.38, 0.34]) + rng.uniform(-0.05, 0.05, 3)
    textured = hill + 0.05 * _fractal(rng, 0.8)[..., None]
    return (tint + _soft(_ROW - ridge * horizon_px)[..., None] * (textured - tint)).astype(np.float32)


def _ground(kind: str, rng: np.random.Generator) -> Image:
    """Seen from above as well as ahead: rows are compressed towards the horizon only by the choice of periods."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    if kind == "sand":
        return _tinted((0.74, 0.63, 0.45), 0.05 * _fractal(rng, 0.5), rng)
    if kind == "grass":
        blades = np.abs(_fractal(rng, 0.7)) * (0.6 + 0.4 * np.sin(_COLUMN * rng.uniform(1.1, 1.6) + phase[0]))
        return _tinted((0.22, 0.40, 0.14), 0.09 * blades, rng)
    if kind == "tiles":
        side_px = rng.uniform(10, 15)
        checks = np.sin(np.pi * _COLUMN / side_px + phase[0]) * np.sin(np.pi * _ROW / side_px + phase[1])
        return _tinted((0.55, 0.52, 0.50), 0.20 * (2 * _soft(checks, 0.08) - 1) + 0.02 * _fractal(rng, 0.8), rng)
    if kind == "planks":
        gaps = _soft(np.cos(2 * np.pi * _COLUMN / rng.uniform(12, 18) + phase[0]) - 0.9, 0.04)
        grain = _fractal(rng, 1.0)[:, :1] * 0.3 + np.sin(_COLUMN * 0.9 + 2 * _fractal(rng, 2.0))
        return _tinted((0.50, 0.33, 0.20), 0.03 * grain - 0.24 * gaps, rng)
    period_px = rng.uniform(8, 11)
    shift = 0.5 * period_px * (np.floor(_ROW / period_px) % 2)
    bump = np.sin(np.pi * (_COLUMN + shift) / period_px) ** 2 * np.sin(np.pi * _ROW / period_px) ** 2
    return _tinted((0.46, 0.46, 0.48), 0.34 * bump - 0.14 + 0.03 * _fractal(rng, 0.6), rng)


def _silhouette(scene: Scene, horizon_px: float, rng: np.random.Generator) -> Image:
    """Coverage in [0, 1] of the object: its outline is where a signed distance in pixels is zero."""
    radius = rng.uniform(*_RADIUS_PX[scene.size])
    across = _COLUMN - rng.uniform(radius + 4, SCENE_PX - radius - 4)
    down = _ROW - np.clip(horizon_px + rng.uniform(-12, 12), radius + 4, SCENE_PX - radius - 4)
    far = np.hypot(across, down)
    if scene.object == "circle":
        inside = radius - far
    elif scene.object == "ring":
        inside = np.minimum(radius - far, far - 0.6 * radius)
    elif scene.object == "square":
        inside = 0.82 * radius - np.maximum(np.abs(across), np.abs(down))
    elif scene.object == "triangle":
        inside = np.minimum(0.7 * radius - down, 0.45 * (down + 0.95 * radius) - 0.9 * np.abs(across))
    elif scene.object == "cross":
        long, short = np.maximum(np.abs(across), np.abs(down)), np.minimum(np.abs(across), np.abs(down))
        inside = np.minimum(radius - long, 0.3 * radius - short)
    else:
        inside = 0.62 * radius * (1 + 0.45 * np.cos(5 * np.arctan2(across, -down))) - far
    return _soft(inside)


def _surface(colour: str, rng: np.random.Generator) -> Image:
    """A painted surface with the fine relief of one of the photographs."""
    relief = _photograph(int(rng.integers(2)), rng).mean(axis=2)
    texture = rng.uniform(0.1, 0.5) * (relief - relief.mean()) + 0.02 * _fractal(rng, 1.0)
    return (np.array(_RGB[colour]) + rng.uniform(-0.06, 0.06, 3) + 0.5 * texture[..., None]).astype(np.float32)


def _photograph(number: int, rng: np.random.Generator) -> Image:
    """An (H, W, C) cut of a sample photograph, at half or full resolution, mirrored or not."""
    photographs = _photographs()
    source = photographs[number][rng.integers(len(photographs[number]))]
    top, left = (rng.integers(side - SCENE_PX + 1) for side in source.shape[:2])
    cut = source[top : top + SCENE_PX, left : left + SCENE_PX]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


@functools.cache
def _photographs() -> tuple[tuple[Image, ...], ...]:
    """For each photograph its full and its half resolution, cut to the part that shows its subject."""
    subjects = (np.s_[20:410, 50:370], np.s_[20:400, 130:520])  # a temple's roofs; a dahlia's petals
    photographs = []
    for image, subject in zip(load_sample_images().images, subjects, strict=True):
        full = image[subject].astype(np.float32) / 255
        height, width = full.shape[0] // 2, full.shape[1] // 2
        half = full[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        photographs.append((full, half))
    return tuple(photographs)


def _tinted(rgb: tuple[float, float, float], relief_HW: Image, rng: np.random.Generator) -> Image:
    tint = np.array(rgb) + rng.uniform(-0.07, 0.07, 3)
    return (tint + relief_HW[..., None]).astype(np.float32)


def _fractal(rng: np.random.Generator, slope: float) -> Image:
    """An (H, W) random field of mean 0 and deviation 1 whose amplitude falls with frequency to the power ``slope``."""
    white = rng.standard_normal((SCENE_PX, SCENE_PX), dtype=np.float32)
    spectrum = np.fft.rfft2(white) / _FREQUENCY**slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(SCENE_PX, SCENE_PX))
    return (field / field.std()).astype(np.float32)


def _soft(distance: Image, width: float = 1.0) -> Image:
    """0 below, 1 above zero, rising over about ``width`` units."""
    return (0.5 + 0.5 * np.clip(distance / width, -1, 1)).astype(np.float32)
