"""A network on pixels as an encoder: from a transform's arrays to features. B images, H and W pixels, K width of the feature."""

from __future__ import annotations

from torch import Tensor, nn

from nullscope.backbones.sharing import Encoder, synchronised
from nullscope.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, flip_where, laid_out, normalise


class PixelEncoder(Encoder):
    """A network that sees normalised images; its batch normalisation is synchronised over ranks."""

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
    ) -> None:
        """``network``: (B, 3, H, W) float32 to (B, K). ``mean`` and ``std`` are per channel, of images on [0, 1]."""
        super().__init__()
        self.network, self.mean, self.std = synchronised(network), mean, std

    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the features of some rows, (B_r, K)."""
        return self.network(self.pixels(inputs))

    def pixels(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return what the network sees, (B, 3, H, W) float32, of ``image`` (B, 3, H, W) uint8 and ``flip`` (B,) bool.

        The cells of a mosaic are laid out by its ``order`` (B, C).
        """
        return normalise(flip_where(laid_out(inputs), inputs["flip"]), self.mean, self.std)
