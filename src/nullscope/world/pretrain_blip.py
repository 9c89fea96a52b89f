"""Pre-training of the embedded BLIP: transformers' architecture, a 64 px image tower and a two-layer captioner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

from nullscope.core.files import replacing_directory
from nullscope.world import pretrain_pictures as pictures_
from nullscope.world.pretrain_pictures import Pictures
from nullscope.world.vocabulary import BEGIN, CONTEXT_LENGTH, END, PAD, TOKENS, tokenizer

BATCH = 64
CYCLES = ((16, 1.5e-3), (7, 1e-3))  # epochs and peak learning rate: shapes of small objects need the second cycle
WEIGHT_DECAY = 0.02
_IDS = {
    "bos_token_id": TOKENS.index(BEGIN),
    "eos_token_id": TOKENS.index(END),
    "sep_token_id": TOKENS.index(END),  # where BLIP's generate stops
    "pad_token_id": TOKENS.index(PAD),
}
_SIZE = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4, "projection_dim": 96}
VISION = _SIZE | {"num_hidden_layers": 4, "image_size": pictures_.BLIP_PX, "patch_size": 8, "initializer_range": 0.02}
TEXT = _SIZE | _IDS | {"num_hidden_layers": 2, "vocab_size": len(TOKENS), "max_position_embeddings": CONTEXT_LENGTH}


def train(pictures: Pictures, *, seed: int) -> Iterator[tuple[BlipForConditionalGeneration, float]]:
    """Train on ``pictures`` as the camera left them; after every epoch yield the model and the mean loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    config = BlipConfig(vision_config=VISION, text_config=TEXT, projection_dim=96, image_text_hidden_size=96)
    model = BlipForConditionalGeneration(config)
    for epochs, learning_rate in CYCLES:
        yield from _cycle(model, pictures, rng, epochs=epochs, learning_rate=learning_rate)


def _cycle(
    model: BlipForConditionalGeneration, pictures: Pictures, rng: np.random.Generator, *, epochs: int, learning_rate: float
) -> Iterator[tuple[BlipForConditionalGeneration, float]]:
    """A learning rate that rises and falls once, with a fresh optimiser."""
    tokens = tokenizer()(pictures.captions, padding="max_length", return_tensors="pt")["input_ids"]
    steps = len(tokens) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps)
    for _ in range(epochs):
        model.train()
        total = 0.0
        for chosen in rng.permutation(len(tokens))[: steps * BATCH].reshape(steps, BATCH):
            loss = _loss(model, _mirrored(pictures.small[chosen], rng), tokens[chosen])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        yield model.eval(), total / steps


@torch.no_grad()
def captions(model: BlipForConditionalGeneration, small_NHWC: NDArray[np.uint8]) -> list[str]:
    """Return the greedy captions of 64 px pictures."""
    words = tokenizer()
    found = []
    for start in range(0, len(small_NHWC), 256):
        pixels = pictures_.normalise(small_NHWC[start : start + 256])
        ids = model.generate(pixel_values=pixels, max_new_tokens=CONTEXT_LENGTH, do_sample=False, num_beams=1)
        found += words.batch_decode(ids, skip_special_tokens=True)
    return found


def save(model: BlipForConditionalGeneration, path: Path) -> None:
    """Write the folder that transformers' stock BLIP classes load."""
    side = {"height": pictures_.BLIP_PX, "width": pictures_.BLIP_PX}
    with replacing_directory(path) as partial:
        model.save_pretrained(partial)
        tokenizer().save_pretrained(partial)
        BlipImageProcessorPil(size=side).save_pretrained(partial)


def _loss(model: BlipForConditionalGeneration, small_BHWC: NDArray[np.uint8], tokens_BL: Tensor) -> Tensor:
    """Every caption has the same length, so no padding needs a mask."""
    return model(pixel_values=pictures_.normalise(small_BHWC), input_ids=tokens_BL, labels=tokens_BL).loss


def _mirrored(small_BHWC: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    flip = rng.random(len(small_BHWC)) < 0.5
    return np.where(flip[:, None, None, None], small_BHWC[:, :, ::-1], small_BHWC)
