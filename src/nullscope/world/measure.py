"""What the embedded encoders can do, measured on pictures they never saw: numbers for the log and for the tests."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor

from nullscope.world import pretrain_clip, scenes
from nullscope.world import pretrain_pictures as pictures_
from nullscope.world.degrade import AMOUNTS, RESAMPLING
from nullscope.world.pretrain_pictures import Pictures

PARTS = ("size", "colour", "object", "ground", "background")
_PLACES = (1, 2, 3, 5, 7)  # of the parts among a caption's words
_CENTRE = (8, 8)


def exactness(found: list[str], true: list[str]) -> dict[str, float]:
    """Shares in [0, 1] of captions that are right as a whole and in each of the five parts."""
    pairs = [(guess.split(), caption.split()) for guess, caption in zip(found, true, strict=True)]
    shares = {"whole": float(np.mean([guess == caption for guess, caption in pairs]))}
    for part, place in zip(PARTS, _PLACES, strict=True):
        shares[part] = float(np.mean([guess[place : place + 1] == caption[place : place + 1] for guess, caption in pairs]))
    return shares


@torch.no_grad()
def features(model: CLIP, views: Tensor) -> Tensor:
    """(N, D) image embeddings, not normalised."""
    return torch.cat([model.visual(batch) for batch in views.split(128)])


@torch.no_grad()
def retrieval(model: CLIP, pictures: Pictures) -> dict[str, float]:
    """Between centre crops and captions: exactness of the nearest of all captions the world knows, and how often a
    caption's picture is among the nearest 1 and 10 of these pictures."""
    image_ND = F.normalize(features(model, pictures_.crops(pictures.degraded, _CENTRE)), dim=1)
    known = all_captions()
    known_KD, text_ND = (model.encode_text(pretrain_clip.encode(texts), normalize=True) for texts in (known, pictures.captions))
    nearest = [known[number] for number in (image_ND @ known_KD.T).argmax(dim=1)]
    ranked_NN = (text_ND @ image_ND.T).argsort(dim=1, descending=True).numpy()
    same_NN = np.array(pictures.captions)[:, None] == np.array(pictures.captions)[None]
    hits_NN = np.take_along_axis(same_NN, ranked_NN, axis=1)
    recall = {f"picture in top {top}": float(hits_NN[:, :top].any(axis=1).mean()) for top in (1, 10)}
    return exactness(nearest, pictures.captions) | recall


def all_captions() -> list[str]:
    """Every caption the world knows."""
    parts = itertools.product(scenes.SIZES, scenes.COLOURS, scenes.OBJECTS, scenes.GROUNDS, scenes.BACKGROUNDS)
    return [scenes.Scene(*choice).caption for choice in parts]


@torch.no_grad()
def degradations(model: CLIP, head: pretrain_clip.Degradations, pictures: Pictures) -> dict[str, float]:
    """On mosaics: R2 of the four amounts, and the share of kinds of resampling recognised."""
    features_ND = features(model, pictures_.mosaics(pictures.degraded, np.random.default_rng(0)))
    read_N4 = head.amounts(features_ND).numpy()
    shares = dict(zip(AMOUNTS, r2(read_N4, pictures.amounts), strict=True))
    kinds_N = head.resampling(features_ND).argmax(dim=1).numpy()
    shares[f"resampling, 1 of {len(RESAMPLING)}"] = float((kinds_N == pictures.resampling).mean())
    return shares


def r2(read_NK: NDArray[np.float32], true_NK: NDArray[np.float32]) -> list[float]:
    """The share of each column's variance that is explained."""
    left_K = ((read_NK - true_NK) ** 2).mean(axis=0) / true_NK.var(axis=0)
    return [float(1 - left) for left in left_K]
