"""ResNet-50, whole and truncated behind its second stage, with torchvision's blocks and names.

B images, H and W pixels, K width of the feature.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet, conv1x1

BLOCKS = (3, 4, 6, 3)  # of the stages of ResNet-50


def resnet50() -> ResNet:
    """Return torchvision's ResNet-50 without its classifier: (B, 3, H, W) to (B, 2048). Random weights."""
    network = ResNet(Bottleneck, list(BLOCKS))
    network.fc = nn.Identity()
    return network


def stage(wide_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Return a stage of ResNet-50, `planes` * 4 channels wide; its first block goes by ``stride``."""
    wide = planes * Bottleneck.expansion
    shortcut = nn.Sequential(conv1x1(wide_in, wide, stride), nn.BatchNorm2d(wide))
    first = Bottleneck(wide_in, planes, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(wide, planes) for _ in range(blocks - 1)))


class TruncatedResNet(nn.Module):
    """The first two stages of a ResNet-50 behind a stem of 3 x 3, (B, 3, H, W) to (B, 8 * width).

    NPR, SAFE and DFFreq classify with it (chuangchuangtan/NPR-DeepfakeDetection, networks/resnet.py). The official width is 64;
    a narrow one serves the embedded world.
    """

    def __init__(self, width: int = 64, blocks: Sequence[int] = BLOCKS[:2]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(width, width, blocks[0], stride=1)
        self.layer2 = stage(4 * width, 2 * width, blocks[1], stride=2)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, averaged over the pixels."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer2(self.layer1(x)).mean((2, 3))


def initialise(network: nn.Module) -> None:
    """Draw the convolutions as torchvision does: He's normal by the number of outputs."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
