"""ResNet-50 and the weights that it begins with."""

import pytest
import torch
from conftest import PATCHES, conf_of
from safetensors.torch import load_file, save_file
from torchvision.models import resnet50

from nullscope import detectors
from nullscope.backbones.fetch import SOURCE_FILE, fetch_initial
from nullscope.backbones.resnet import ResNet50, TruncatedResNet
from nullscope.detectors.base import Context

NARROW = {"width": 4, "blocks": [1, 1, 1, 1]}


@pytest.fixture
def file(tmp_path):
    """Weights of a narrow network as torchvision would name them, with a classifier."""
    network = ResNet50(**NARROW)
    save_file(
        {**network.state_dict(), "fc.weight": torch.zeros(2, 128), "fc.bias": torch.zeros(2)}, tmp_path / "weights.safetensors"
    )
    return tmp_path / "weights.safetensors"


@pytest.mark.slow
def test_it_is_torchvisions_network():
    """The same names, and the same features from the same weights."""
    theirs = resnet50(weights=None)
    theirs.fc = torch.nn.Identity()
    ours = ResNet50()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), atol=1e-5, rtol=1e-5)


def test_the_truncated_network_ends_behind_its_second_stage():
    names = {name.partition(".")[0] for name in TruncatedResNet(4).state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2"}
    assert TruncatedResNet(4)(torch.zeros(2, 3, 16, 16)).shape == (2, 32)


def test_a_file_of_ones_own_is_copied_where_the_stage_encoders_writes(file, tmp_path):
    fetch_initial({"resnet50": str(file)}, tmp_path / "initial")
    assert {path.name for path in (tmp_path / "initial").iterdir()} == {"resnet50.safetensors", SOURCE_FILE}
    assert (tmp_path / "initial/resnet50.safetensors").read_bytes() == file.read_bytes()


def test_torchvisions_weights_are_asked_for_with_their_hash_and_without_unpickling(tmp_path, monkeypatch):
    """The hub is not reached here: what torchvision is asked for stands in for what it would bring."""
    asked = {}

    def load(url, **options):
        asked.update(options, url=url)
        return ResNet50(**NARROW).state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    fetch_initial({"resnet50": "ResNet50_Weights.IMAGENET1K_V1"}, tmp_path / "initial")
    assert asked["url"].endswith("resnet50-0676ba61.pth") and asked["check_hash"] and asked["weights_only"]
    assert load_file(tmp_path / "initial/resnet50.safetensors").keys() == ResNet50(**NARROW).state_dict().keys()


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET", "nowhere.safetensors", "resnet50"])
def test_weights_that_cannot_be_had_are_an_error_that_says_what_is_expected(name, tmp_path):
    with pytest.raises(ValueError, match=r"could not be had .*expected torchvision's name of weights, such as ResNet50_Weights"):
        fetch_initial({"resnet50": name}, tmp_path / "initial")
    assert not (tmp_path / "initial").exists()


def spot(**changes):
    return detectors.build("cnn_spot", {**conf_of("cnn_spot"), **NARROW, **changes}, Context({}, PATCHES), seed=0)


def test_cnn_spot_begins_with_the_weights_that_it_names(file, tmp_path):
    fetch_initial({"resnet50": str(file)}, tmp_path / "initial")
    expected = load_file(file)
    named, drawn = spot(initial="imagenet"), spot(initial="random")
    for detector in (named, drawn):
        detector.begin(tmp_path / "initial")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in named.encoder.network.state_dict().items())
    assert not torch.equal(drawn.encoder.network.conv1.weight, expected["conv1.weight"])


def test_weights_that_are_missing_or_of_another_network_are_no_silent_random_ones(file, tmp_path):
    fetch_initial({}, tmp_path / "none")
    with pytest.raises(ValueError, match=r"name them in `encoder.initial` .* or choose random ones"):
        spot(initial="imagenet").begin(tmp_path / "none")
    fetch_initial({"resnet50": str(file)}, tmp_path / "initial")
    with pytest.raises(ValueError, match="holds another network"):
        spot(initial="imagenet", width=8).begin(tmp_path / "initial")


def test_the_rate_of_cnn_spot_falls_twice():
    detector = spot()
    (phase,) = detector.phases()
    from nullscope.detectors.base import Progress

    factors = [phase.lr_factor(Progress(epoch, 9, step, 10)) for epoch in range(9) for step in range(10)]
    assert factors == [1.0] * 30 + [0.1] * 30 + [0.01] * 30
