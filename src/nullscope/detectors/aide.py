"""AIDE (Yan et al. 2024, "A Sanity Check for AI-generated Image Detection"): the noise of a few patches, and the meaning.

Two experts see an image. One sees the noise of the two windows with the lowest frequencies and of the two with the highest, the
other what the image shows.

    p0 .. p3 = windows of 32 px with the lowest, highest, 2nd lowest, 2nd highest grade (`nullscope.ops.dct_windows`), enlarged
    n = (R_low(S p0) + R_high(S p1) + R_low(S p2) + R_high(S p3)) / 4    (B, 2048)   S: 30 high-pass kernels; R: ResNet-50
    g = P E(image)                                                       (B, 256)    E: a frozen network; P: never trained
    z = W2 gelu(W1 [g, n] + b1) + b2                                     (B, 2)
    logit = z_fake - z_real                                              (B,)

S is one kernel on the sum of the three colours, each normalised with ImageNet's statistics. The loss is the cross-entropy of z
with labels smoothed by 0.1: binary cross-entropy of the logit with 0.05 and 0.95.

*The frozen network* is the image half of the CLIP ConvNeXt-XXL of LAION (843 million parameters, 3.4 GB; its CLIP is a download
of 4.8 GB), on the whole image squashed to 256 px: ``-S encoder=vit_l_14_convnext``. It stays in evaluation mode. For the embedded
world there is no small one, and the embedded CLIP takes its place (``global_network: clip``).

*P* lies behind the frozen network within its `no_grad` in the published code. So it keeps the numbers it was drawn with; they are
saved with the weights.

*Input.* A side below 32 px has no window: such images are refused. One training image in ten is blurred (sigma uniform from 0.1
to 3 px), one in ten goes through JPEG (quality uniform from 30 to 100). The whole image is squashed without a filter
(``antialias: false``), as in the version of torchvision that the authors pin, or with one, as in the newer one that AIGIBench
installs: their logits differ for images larger than 256 px.

*Recipe.* AdamW without weight decay, the rate along a cosine, per step, to 1e-6. Weights of an ImageNet ResNet-50 are optional in
both codes (``initial``); which of them the published numbers had is not known.

*Presets.* ``aide_official``: 1e-4 per 256 images a step, 8 x 32 images, 20 epochs (shilinyan99/AIDE). ``aide_aigibench``: one
GPU, so 32 images and 1.25e-5, 25 epochs, with antialiasing. ``aide`` alone has narrow ResNets for the embedded world.

*Not copied.* The published training switches the frozen network to training mode, where it drops blocks, augments validation
images too, draws another image for one it cannot read, and keeps the epoch with the best validation accuracy. Its blur is cut off
at 3 x 3 pixels.

B images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from nullscope.backbones.clip import clip_facts, load_image_tower
from nullscope.backbones.convnext import ConvNeXt
from nullscope.backbones.resnet import ResNet50
from nullscope.backbones.sharing import Encoder, synchronised
from nullscope.detectors import base
from nullscope.images.augmentation import Blur, Jpeg
from nullscope.ops.dct_windows import WINDOW_PX, picked_windows
from nullscope.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from nullscope.ops.srm import srm_kernels
from nullscope.shards.batch import Batch

BLUR_PX, QUALITY = (0.1, 3.0), (30, 100)  # of the augmentation
CONVNEXT_PX = 256  # side of what the frozen ConvNeXt sees
LOW, HIGH = (0, 2), (1, 3)  # places of the windows


class Config(base.DetectorParams):
    """Parameters of AIDE."""

    last_lr: NonNegativeFloat
    augmented: float = Field(ge=0, le=1)  # share of the training images that are blurred; and, drawn apart, compressed
    smoothing: float = Field(ge=0, lt=1)  # of the labels
    antialias: bool  # of the whole image, squashed
    view_px: PositiveInt  # side of an enlarged window; 256 in the published network
    width: PositiveInt  # channels of the ResNets' first stage; 64 is the published network
    blocks: list[PositiveInt] = Field(min_length=4, max_length=4)  # of their stages; 3, 4, 6, 3 is ResNet-50
    initial: Literal["imagenet", "random"]  # weights that the ResNets begin with
    global_network: Literal["convnext", "clip"]
    global_width: PositiveInt  # of P; 256 in the published network
    hidden: PositiveInt  # of W1; 1024 in the published network


@dataclass(frozen=True)
class Views:
    """The four windows, and the whole image squashed."""

    side_px: int
    antialias: bool
    augmented: float
    kind: ClassVar[str] = "images"
    min_side_px: ClassVar[int] = WINDOW_PX

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``windows`` (4, 3, 32, 32) uint8 and ``image`` (3, P, P) float32 on [0, 1]."""
        if training:
            for augmentation in (Blur(self.augmented, *BLUR_PX), Jpeg(self.augmented, *QUALITY)):
                image_HWC = augmentation(image_HWC, rng)
        windows = np.ascontiguousarray(picked_windows(image_HWC).transpose(0, 3, 1, 2))
        whole = torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))[None].float() / 255
        squashed = _resized(whole, self.side_px, antialias=self.antialias)
        return {"windows": windows, "image": squashed[0].numpy()}


class Experts(Encoder):
    """Both experts, from the views to [g, n]."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__()
        self.view_px = params.view_px
        self.register_buffer("kernels", srm_kernels()[:, None].repeat(1, 3, 1, 1))
        self.low, self.high = (synchronised(ResNet50(params.width, params.blocks, len(self.kernels))) for _ in range(2))
        for block in self.modules():
            if isinstance(block, Bottleneck):
                nn.init.zeros_(block.bn3.weight)
        folder = context.backbone(params.global_network)
        if params.global_network == "clip":
            self.network, facts = load_image_tower(folder), clip_facts(folder)
            self.side_px, self.mean, self.std, wide = facts.image_px, facts.mean, facts.std, facts.width
        else:
            self.network, self.side_px = ConvNeXt(folder), CONVNEXT_PX
            self.mean, self.std, wide = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, self.network.width
        projection = nn.Linear(wide, params.global_width)
        self.register_buffer("projection_weight", projection.weight.detach())
        self.register_buffer("projection_bias", projection.bias.detach())
        self.width = params.global_width + 32 * params.width

    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return [g, n] of some rows, (B_r, K)."""
        with torch.no_grad():
            seen = self.network(_normalised(inputs["image"], self.mean, self.std))
            meaning_BK = F.linear(seen, self.projection_weight, self.projection_bias)
        noise = [self.low(self.noise(inputs["windows"][:, place])) for place in LOW]
        noise += [self.high(self.noise(inputs["windows"][:, place])) for place in HIGH]
        return torch.cat([meaning_BK, torch.stack(noise).mean(0)], dim=1)

    def noise(self, window_BCHW: Tensor) -> Tensor:
        """Return what the kernels leave of enlarged windows, (B, 30, V, V)."""
        large = _resized(window_BCHW.float() / 255, self.view_px, antialias=False)
        return F.conv2d(_normalised(large, IMAGENET_MEAN, IMAGENET_STD), self.kernels, padding=2)


class Detector(base.Detector):
    """AIDE."""

    official_constants = r"model_(min|max)\.fc\..*"  # classifiers of ImageNet's classes that nothing uses

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.backbones = (params.global_network,)
        self.experts = Experts(params, context)
        self.transform = Views(self.experts.side_px, params.antialias, params.augmented)
        self.fc1, self.fc2 = nn.Linear(self.experts.width, params.hidden), nn.Linear(params.hidden, 2)

    def begin(self, folder: Path) -> None:
        """Take ImageNet's weights for both ResNets but their stems, where the parameters ask for them."""
        if self.params.initial == "imagenet":
            for network in (self.experts.low, self.experts.high):
                network.begin(folder / "resnet50.safetensors")

    def features(self, batch: Batch) -> Tensor:
        """Return [g, n], (B, K)."""
        return self.experts(batch.inputs).float()

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,): the fake's less the real's."""
        output_B2 = self.fc2(F.gelu(self.fc1(feature_BK)))
        return output_B2[:, 1] - output_B2[:, 0]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy with smoothed labels."""
        target_B = batch.is_fake_B * (1 - self.params.smoothing) + self.params.smoothing / 2
        return {"bce": F.binary_cross_entropy_with_logits(self(batch), target_B)}

    def phases(self) -> list[base.Phase]:
        """Return the one phase: the rate falls along a cosine."""
        params = self.params
        floor = params.last_lr / params.lr

        def factor(progress: base.Progress) -> float:
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress.share)) / 2

        return [base.Phase("main", self.trainable(), params.epochs, params.lr, lr_factor=factor)]

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls the tensor that `kept_state` calls ``name``."""
        name = name.removeprefix("experts.")
        if name == "kernels":
            return "hpf.hpf.weight"
        if name.startswith("projection_"):
            return f"convnext_proj.0.{name.removeprefix('projection_')}"
        part, _, rest = name.partition(".")
        return {"low": "model_min", "high": "model_max"}.get(part, f"fc.{part}") + f".{rest}"

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a checkpoint holds too, under its names."""
        network = self.experts.network
        trunk = network.trunk.state_dict() if isinstance(network, ConvNeXt) else {}
        return {f"openclip_convnext_xxl.{name}": tensor for name, tensor in trunk.items()}


def _resized(image_BCHW: Tensor, side: int, *, antialias: bool) -> Tensor:
    return F.interpolate(image_BCHW, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias)


def _normalised(image_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return images on [0, 1] less the channel's mean, over its deviation."""
    mean_C11, std_C11 = (torch.stack([image_BCHW.new_full((1, 1), number) for number in numbers]) for numbers in (mean, std))
    return (image_BCHW - mean_C11) / std_C11
