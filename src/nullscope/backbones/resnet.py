"""ResNet-50, whole and truncated behind its second stage, with torchvision's blocks and names.

B images, H and W pixels, K width of the feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, conv1x1

BLOCKS = (3, 4, 6, 3)  # of the stages of ResNet-50


def stage(wide_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Return a stage of ResNet-50, `planes` * 4 channels wide; its first block goes by ``stride``."""
    wide = planes * Bottleneck.expansion
    shortcut = nn.Sequential(conv1x1(wide_in, wide, stride), nn.BatchNorm2d(wide))
    first = Bottleneck(wide_in, planes, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(wide, planes) for _ in range(blocks - 1)))


class ResNet50(nn.Module):
    """torchvision's ResNet-50 without its classifier, by the same names, (B, channels, H, W) to (B, 32 * width).

    The official width is 64; a narrow one serves the embedded world.
    """

    def __init__(self, width: int = 64, blocks: Sequence[int] = BLOCKS, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(width, width, blocks[0], stride=1)
        self.layer2 = stage(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = stage(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = stage(16 * width, 8 * width, blocks[3], stride=2)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, averaged over the pixels."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))

    def begin(self, file: Path) -> None:
        """Take torchvision's weights from a safetensors file, without its classifier, and without its stem for other channels.

        Raises `ValueError` if the file is missing, or holds another network.
        """
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): expected the weights that the network begins with; name them in "
                "`encoder.initial` and run `dvc repro encoders`, or choose random ones with the parameter `initial: random`"
            ) from None
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
        if self.conv1.in_channels != 3:
            state["conv1.weight"] = self.conv1.weight.detach()
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{file} holds another network: {' '.join(str(error).split())[:300]}") from None


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
