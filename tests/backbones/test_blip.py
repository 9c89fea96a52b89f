"""What BLIP sees, and the captions it writes, are those of transformers' own processor and loop."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from nullscope.backbones.blip import Captioner, CaptionParams, LevelScale, PixelReader

ASSETS = Path(str(files("nullscope") / "assets"))
BLIP, CPU = ASSETS / "blip", torch.device("cpu")
PARAMS = CaptionParams(max_new_tokens=40, batch_size=8, precision="fp32")


def images(count):
    """Coloured gradients with noise, of different sizes and shapes."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        height, width = rng.integers(20, 200, 2)
        ramp = np.linspace(0, 255, height)[:, None, None] * rng.random(3) + rng.normal(0, 5 * number, (height, width, 3))
        found.append(np.clip(ramp, 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def processed():
    """Images, and what the processor of transformers makes of each."""
    processor = BlipImageProcessorPil.from_pretrained(BLIP)
    return [(image, processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]) for image in images(8)]


def test_levels_scaled_on_the_device_are_the_processors_floats(processed):
    read, scale = PixelReader(BLIP), LevelScale(BLIP)
    for image, expected in processed:
        levels = read(image)
        assert levels.dtype == torch.uint8 and levels.shape == (3, 64, 64)
        assert torch.equal(scale(levels[None])[0], expected)


def test_captions_are_those_of_one_image_at_a_time(processed):
    model, tokenizer = BlipForConditionalGeneration.from_pretrained(BLIP).eval(), AutoTokenizer.from_pretrained(BLIP)
    expected = []
    for _, pixels in processed:
        tokens = model.generate(pixel_values=pixels[None], max_new_tokens=11, do_sample=False, num_beams=1)
        expected.append(tokenizer.decode(tokens[0], skip_special_tokens=True))
    read = PixelReader(BLIP)
    assert Captioner(BLIP, PARAMS, CPU).caption(torch.stack([read(image) for image, _ in processed])) == expected
    assert len(set(expected)) > 1


def test_bf16_writes_captions_too(processed):
    """Where the parameter says so."""
    assert Captioner(BLIP, PARAMS, CPU).model.dtype == torch.float32
    captioner, read = Captioner(BLIP, PARAMS.model_copy(update={"precision": "bf16"}), CPU), PixelReader(BLIP)
    assert captioner.model.dtype == torch.bfloat16
    assert all(captioner.caption(torch.stack([read(image) for image, _ in processed])))


def test_a_blip_that_sees_images_otherwise_is_refused(tmp_path):
    folder = shutil.copytree(BLIP, tmp_path / "blip")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_normalize": False}))
    with pytest.raises(ValueError, match="resizes, rescales and normalises"):
        PixelReader(folder)
