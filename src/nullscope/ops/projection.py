"""The removal of directions from features. Without torch of its own, so that arrays and tensors go through the same lines."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Rows = TypeVar("Rows", bound=np.ndarray)  # or a torch.Tensor, whose operators are the same


def remove(feature_BD: Rows, basis_DK: Rows) -> Rows:
    """Return the features without their part in the basis: ``u - (u B) B^T``, (B, D) -> (B, D) (NS-Net, equations 5 to 10).

    ``basis_DK`` has K orthonormal columns. Both are numpy arrays, or both are tensors; the dtype is that of their product.
    """
    return feature_BD - (feature_BD @ basis_DK) @ basis_DK.T
