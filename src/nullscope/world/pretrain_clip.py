"""Pre-training of the embedded CLIP: open_clip's architecture, 0.86 M parameters in the image tower.

Two things beside the usual contrastive loss make its embedding see texture; without either it is blind to it:
the patch embedding starts as whitened principal components of luma and chroma, so that fine detail, a thousandth of a
patch's energy, reaches the tower at all; and a linear head must read from the embedding how the picture was degraded.
Half of every batch are crops, half mosaics of shuffled patches, the two views detectors use.

Legend: B pictures of a batch, D = 128 width of the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.transformer import PatchDropout
from safetensors.torch import save_file
from torch import Tensor, nn

from nullscope.core.files import replacing_directory, write_json
from nullscope.world import pretrain_pictures as pictures_
from nullscope.world.degrade import AMOUNTS, RESAMPLING
from nullscope.world.pretrain_pictures import Pictures
from nullscope.world.vocabulary import CONTEXT_LENGTH, TOKENS, tokenizer

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 128, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": len(TOKENS), "width": 96, "heads": 3, "layers": 2},
}
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
AMOUNTS_WEIGHT = 20.0
PATCH_DROPOUT = 0.5  # in all epochs but the last ones: two and a half times as fast
FULL_EPOCHS = 1
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
_COMPONENTS = (64, 32, 32)  # of luma and the two chromas: the tower's width


class Degradations(nn.Module):
    """Linear head that reads what was done to a picture from its embedding; thrown away after pre-training."""

    def __init__(self) -> None:
        super().__init__()
        self.amounts = nn.Linear(MODEL["embed_dim"], len(AMOUNTS))
        self.resampling = nn.Linear(MODEL["embed_dim"], len(RESAMPLING))

    def loss(self, features_BD: Tensor, amounts_B4: Tensor, resampling_B: Tensor) -> Tensor:
        """Squared error of the amounts, weighted, plus cross-entropy of the kind of resampling."""
        error = F.mse_loss(self.amounts(features_BD), amounts_B4)
        return AMOUNTS_WEIGHT * error + F.cross_entropy(self.resampling(features_BD), resampling_B)


def train(pictures: Pictures, *, epochs: int, seed: int) -> Iterator[tuple[CLIP, Degradations, dict[str, float]]]:
    """Train on ``pictures``; after every epoch yield the model, its second head and the mean losses."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    model, head = CLIP(**MODEL), Degradations()
    model.visual.conv1.weight.data.copy_(whitened_filters(pictures.degraded[:800]))
    model.visual.patch_dropout = PatchDropout(PATCH_DROPOUT)
    tokens = encode(pictures.captions)
    steps = len(tokens) // BATCH
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        if epoch == epochs - FULL_EPOCHS:
            model.visual.patch_dropout = nn.Identity()
        model.train()
        losses = np.zeros(2)
        for chosen_B in rng.permutation(len(tokens))[: steps * BATCH].reshape(steps, BATCH):
            features_BD = model.visual(_views(pictures.degraded[chosen_B], rng))
            amounts_B4, kinds_B = torch.from_numpy(pictures.amounts[chosen_B]), torch.from_numpy(pictures.resampling[chosen_B])
            captions = contrastive(model, features_BD, tokens[chosen_B])
            degradations = head.loss(features_BD, amounts_B4, kinds_B)
            optimiser.zero_grad()
            (captions + degradations).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            losses += captions.item(), degradations.item()
        yield model.eval(), head, dict(zip(("contrastive", "degradations"), (losses / steps).tolist(), strict=True))


def contrastive(model: CLIP, features_BD: Tensor, tokens_BL: Tensor) -> Tensor:
    """CLIP's symmetric loss; pictures with equal captions are all right answers to each other."""
    text_BD = model.encode_text(tokens_BL, normalize=True)
    logits_BB = model.logit_scale.exp().clamp(max=100) * F.normalize(features_BD, dim=1) @ text_BD.T
    same_BB = (tokens_BL[:, None] == tokens_BL[None]).all(dim=2).float()
    target_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB)) / 2


def whitened_filters(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
    """Return (128, 3, 8, 8) filters: principal components of luma and chroma patches over their deviations."""
    patch_px = MODEL["vision_cfg"]["patch_size"]
    ycc = torch.einsum("ij,bjhw->bihw", _YCC, pictures_.normalise(pictures_NHWC))
    filters = []
    for channel, components in enumerate(_COMPONENTS):
        patches = F.unfold(ycc[:, channel : channel + 1], patch_px, stride=patch_px).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        leading = (vectors / (values.clamp(min=0) + 1e-4).sqrt()).flip(1)[:, :components].T
        filters.append(torch.einsum("j,khw->kjhw", _YCC[channel], leading.reshape(components, patch_px, patch_px)))
    return 0.1 * torch.cat(filters)


def encode(captions: list[str]) -> Tensor:
    """Return (N, 12) token ids, as open_clip's own tokeniser does from the saved files."""
    return tokenizer()(captions, padding="max_length", return_tensors="pt")["input_ids"]


def save(model: CLIP, path: Path) -> None:
    """Write the folder that open_clip loads as ``local-dir:<path>``."""
    text = MODEL["text_cfg"] | {"hf_tokenizer_name": "word-level"}  # any name: open_clip takes the folder's own files
    preprocess = {"mean": pictures_.CLIP_MEAN, "std": pictures_.CLIP_STD, "interpolation": "bicubic"}
    with replacing_directory(path) as partial:
        write_json(partial / "open_clip_config.json", {"model_cfg": MODEL | {"text_cfg": text}, "preprocess_cfg": preprocess})
        tokenizer().save_pretrained(partial)
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, partial / "open_clip_model.safetensors")


def _views(pictures_BHWC: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    half = len(pictures_BHWC) // 2
    top, left = (int(offset) for offset in 8 * rng.integers(0, 3, 2))
    return torch.cat([pictures_.crops(pictures_BHWC[:half], (top, left)), pictures_.mosaics(pictures_BHWC[half:], rng)])
