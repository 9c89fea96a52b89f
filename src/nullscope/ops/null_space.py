"""The null space of caption semantics: a basis of what is removed from image features, and its removal.

NS-Net, equations 5 to 10: V holds the text features of captions as rows, P_V projects onto its null space, f = U P_V. Here
P_V = I - B B^T with B an orthonormal basis of the *row space* of V (what is removed), applied as ``u - (u B) B^T``: the
product is the same, costs D * k instead of D * D, and cannot fall into the trap of a thin SVD, whose last rows are not null
vectors (they are the semantics themselves).

The paper does not say which captions make V. With every caption of 288,000 the null space is empty; so ``global`` keeps the
leading directions by rank or by energy. N captions, D embedding width, k removed directions, B images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from nullscope.core.config import Params
from nullscope.ops import projection

RELATIVE_TOLERANCE = 1e-6  # singular values below this share of the largest count as zero (Advanced NS-Net: tau_sv)


class NullSpaceParams(Params):
    """Which directions are removed: for ``global`` exactly one of ``rank`` and ``energy``, for the others neither."""

    scope: Literal["none", "global", "batch", "sample"]  # `batch`: equations 5 to 9 on the captions of each mini-batch
    rank: PositiveInt | None = None  # remove this many leading directions of the training captions
    energy: Annotated[float, Field(gt=0, lt=1)] | None = None  # or as many as hold this share of the squared singular values

    @model_validator(mode="after")
    def _one_rule(self) -> NullSpaceParams:
        given = [name for name in ("rank", "energy") if getattr(self, name) is not None]
        if len(given) != (self.scope == "global"):
            expected = "exactly one of rank and energy" if self.scope == "global" else "neither rank nor energy"
            raise ValueError(f"scope {self.scope!r}: expected {expected}, found {given or 'none'}")
        return self


def gram(texts: Iterable[Tensor]) -> Tensor:
    """Return V^T V, summed in float64 over chunks (N_i, D) of any float dtype: (D, D) float64, in the memory of one chunk."""
    total: Tensor | None = None
    for text_ND in texts:
        wide = text_ND.double()
        product = wide.T @ wide
        total = product if total is None else total + product
    if total is None:
        raise ValueError("no captions: expected those of the training images; run the stages `caption` and `embed` first")
    return total


def basis_of_gram(gram_DD: Tensor, *, rank: int | None = None, energy: float | None = None) -> Tensor:
    """Return an orthonormal basis of the leading directions of V, given V^T V: (D, k) float64.

    ``rank`` keeps that many directions, ``energy`` the fewest that hold that share of the squared singular values; with
    neither, all whose singular value exceeds `RELATIVE_TOLERANCE` of the largest. Raises `ValueError` if nothing would be left of
    the feature space, or if ``rank`` asks for more directions than the captions span.
    """
    values_D, vectors_DD = torch.linalg.eigh(gram_DD)
    values_D, vectors_DD = values_D.flip(0).clamp(min=0), vectors_DD.flip(1)
    width = len(values_D)
    # Squared singular values: the smallest that float64 can tell from zero lie near width * eps, above tolerance squared.
    floor = max(RELATIVE_TOLERANCE**2, width * torch.finfo(torch.float64).eps)
    spanned = int((values_D > floor * values_D[0]).sum())
    if energy is not None:
        share = values_D.cumsum(0) / values_D.sum()
        kept = int((share < energy).sum()) + 1
    else:
        kept = spanned if rank is None else rank
    if kept > spanned:
        most = min(spanned, width - 1)
        raise ValueError(f"null space of rank {kept}: the captions span only {spanned} directions; choose rank <= {most}")
    if kept >= width:
        raise ValueError(
            f"the null space is empty: the captions span all {width} dimensions of the embedding, so removing them removes "
            "everything; choose `rank` or `energy` below that (288,000 captions span all 768 of ViT-L/14)"
        )
    return _canonical(vectors_DD[:, :kept])


def batch_basis(text_ND: Tensor) -> Tensor:
    """Return an orthonormal basis of the row space of one mini-batch of captions: (D, k), k <= min(N, D), dtype as given.

    NS-Net's equations 5 to 9 taken literally. Raises `ValueError` if the captions span the whole space.
    """
    if not len(text_ND):
        raise ValueError("no captions in the batch: expected one per image")
    # In float64: float32 leaves repeated captions (BLIP makes many) singular values of up to 1e-6 of the largest instead of zero.
    _, values, rows = torch.linalg.svd(text_ND.double(), full_matrices=False)
    kept = int((values > RELATIVE_TOLERANCE * values[0]).sum())
    if kept >= text_ND.shape[1]:
        raise ValueError(f"the null space is empty: {len(text_ND)} captions span all {text_ND.shape[1]} dimensions; use fewer")
    return rows[:kept].T.to(text_ND.dtype)


def remove(image_BD: Tensor, basis_DK: Tensor) -> Tensor:
    """Project features off a basis: ``u - (u B) B^T``, (B, D) -> (B, D). ``basis_DK`` (D, k) has orthonormal columns."""
    with torch.autocast(image_BD.device.type, enabled=False):  # bfloat16 products would leave 0.4 % of the captions
        image_BD = image_BD.to(torch.promote_types(image_BD.dtype, basis_DK.dtype))
        return projection.remove(image_BD, basis_DK)


def remove_own(image_BD: Tensor, text_BD: Tensor) -> Tensor:
    """Project every feature off its own caption (rank one): (B, D), (B, D) -> (B, D). A zero caption removes nothing."""
    unit_BD = nn.functional.normalize(text_BD, dim=1)
    return image_BD - (image_BD * unit_BD).sum(1, keepdim=True) * unit_BD


class NullSpace(nn.Module):
    """The projection as a part of any detector on CLIP features: f -> f without the directions of captions.

    ``global``: off the leading directions of all training captions, found once by `fit`; a test image needs no caption.
    With ``batch`` and ``sample`` a test image needs its caption, and is projected off that one only: ``batch`` treats it as a
    batch of one, because a score must not depend on other images. ``none``: the identity.
    """

    def __init__(self, params: NullSpaceParams, width: int) -> None:
        super().__init__()
        self.params = params
        self.register_buffer("basis_DK", torch.zeros(width, 0))  # what is removed, for the scope `global`

    @property
    def needs_captions(self) -> bool:
        """Whether training needs captions."""
        return self.params.scope != "none"

    @property
    def captions_at_inference(self) -> bool:
        """Whether a test image needs its caption."""
        return self.params.scope in ("batch", "sample")

    def fit(self, texts: Iterable[Tensor]) -> None:
        """Find what ``global`` removes, from the features of all training captions in chunks (N_i, D), in float64.

        Captions are normalised to unit length first, so that each counts the same.
        """
        if self.params.scope == "global":
            gram_DD = gram(nn.functional.normalize(text_ND.double(), dim=1) for text_ND in texts)
            basis_DK = basis_of_gram(gram_DD, rank=self.params.rank, energy=self.params.energy)
            # As it is read back: another layout rounds otherwise. `contiguous` would leave a single column as it lies.
            self.basis_DK = basis_DK.to(self.basis_DK).clone(memory_format=torch.contiguous_format)

    def forward(self, image_BD: Tensor, text_BD: Tensor | None) -> Tensor:
        """Return the projected features, (B, D); ``text_BD`` (B, D) are the captions of the images, where they are needed."""
        if self.params.scope == "none":
            return image_BD
        if self.params.scope == "global":
            return remove(image_BD, self.basis_DK)
        if text_BD is None:
            raise ValueError(f"null space of scope {self.params.scope!r}: expected the captions of the images, found none")
        if self.params.scope == "batch" and self.training:
            return remove(image_BD, batch_basis(nn.functional.normalize(text_BD, dim=1)))
        return remove_own(image_BD, text_BD)


def _canonical(vectors_DK: Tensor) -> Tensor:
    """Give every column the sign that makes its largest entry positive: LAPACK may return either."""
    largest = vectors_DK.abs().argmax(0)
    signs = torch.sign(vectors_DK[largest, torch.arange(vectors_DK.shape[1])])
    return vectors_DK * signs
