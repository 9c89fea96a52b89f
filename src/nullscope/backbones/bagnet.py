"""The networks of LaDeDa and Tiny-LaDeDa: convolutions that see a small patch, so that a feature map is a map of patches.

After BagNet (Brendel and Bethge 2019), as barcavia/RealTime-DeepfakeDetection-in-the-RealWorld writes it in networks/LaDeDa.py
and networks/Tiny_LaDeDa.py. Almost all convolutions are 1 x 1, and those of 3 x 3 have no padding. B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nullscope.backbones.resnet import BLOCKS, initialise

STEM_MOMENTUM = 0.001  # of the first batch normalisation: it knows its images after some thousand steps
EXPANSION = 4  # output channels of a bottleneck over its planes
STRIDES, FIRST_KERNELS = (2, 2, 2, 1), (3, 3, 1, 1)  # of the four stages


class PatchBottleneck(nn.Module):
    """A bottleneck whose middle convolution has no padding; the way around it is cut at the bottom and the right to fit."""

    def __init__(self, wide_in: int, planes: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = EXPANSION * planes
        self.conv1 = nn.Conv2d(wide_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel, stride, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or wide_in != wide:
            self.downsample = nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        """(B, wide_in, H, W) -> (B, 4 * planes, H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        around = x if self.downsample is None else self.downsample(x)
        return self.relu(out + around[:, :, : out.shape[2], : out.shape[3]])


class PatchResNet(nn.Module):
    """LaDeDa9: a ResNet-50 that sees 9 x 9 pixels, (B, 3, H, W) to a map (B, 32 * width, H', W'); 256 px give 31 x 31.

    The official width is 64.
    """

    def __init__(self, width: int = 64, blocks: Sequence[int] = BLOCKS, stem_momentum: float = STEM_MOMENTUM) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=stem_momentum)
        self.relu = nn.ReLU(inplace=True)
        wide = width
        for number, (count, stride, kernel) in enumerate(zip(blocks, STRIDES, FIRST_KERNELS, strict=True)):
            planes = width * 2**number
            first = PatchBottleneck(wide, planes, kernel, stride)
            wide = EXPANSION * planes
            others = [PatchBottleneck(wide, planes, kernel=1, stride=1) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(first, *others))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature of every patch."""
        x = self.relu(self.bn1(self.conv2(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class TinyBlock(nn.Module):
    """A convolution of 1 x 1 and one of 3 x 3 by steps of two, without a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class TinyPatchNet(nn.Module):
    """Tiny-LaDeDa: four convolutions, (B, 3, H, W) to a map (B, width, H', W'); 256 px give 126 x 126.

    The official width is 8.
    """

    def __init__(self, width: int = 8, stem_momentum: float = STEM_MOMENTUM) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=stem_momentum)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(TinyBlock(width))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature of every patch."""
        return self.layer1(self.relu(self.bn1(self.conv2(self.conv1(x)))))
