"""Captions: a loop over images as the notebooks around the papers write it, beside ours.

The loop opens a file, runs transformers' processor and `generate` on it alone, in float32; on a GPU it sees the first few images,
for each takes most of a second. Ours decodes and resizes in a worker process, sends bytes to the device and captions 64 images at
once (on a GPU in float32 and in bf16). On the CPU the clock counts the CPU time of all processes, on a GPU it is wall time.
`batch` is the captioning of 64 images that lie decoded in memory, `tower` BLIP's image tower alone, in our batches and precision;
`padding` the share of generated tokens that stand behind the end of a caption, `other` the captions of those 64 that float32
writes otherwise. The aim is five times the loop.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import cpu_seconds, median_seconds, over_encoders, synchronised
from PIL import Image
from samples import MAX_PIXELS, photographs, world_pictures, write_blip
from transformers import AutoTokenizer, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from nullscope.backbones.blip import Captioner, CaptionParams, PixelReader
from nullscope.captioning import captions
from nullscope.core import ranks
from nullscope.images.decoder import decode
from nullscope.tables.listing import Item

PARAMS = CaptionParams(max_new_tokens=40, batch_size=64, precision="fp32")  # conf/config.yaml
LOOPED = 8  # images of the loop on a GPU


def notebook(blip: Path, items: list[Item], device: torch.device, tokens: int) -> Callable[[], list[str]]:
    """Return the loop over ``items``; the model is loaded here, once."""
    model = BlipForConditionalGeneration.from_pretrained(blip).to(device).eval()
    processor, tokenizer = BlipImageProcessorPil.from_pretrained(blip), AutoTokenizer.from_pretrained(blip)

    def caption_all() -> list[str]:
        found = []
        for item in items:
            inputs = processor(Image.open(item.source).convert("RGB"), return_tensors="pt").to(device)
            with torch.no_grad():
                out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, num_beams=1)
            found.append(tokenizer.decode(out[0], skip_special_tokens=True).strip())
        return found

    return caption_all


def ours(blip: Path, items: list[Item], params: CaptionParams, device: torch.device, workers: int) -> list[str]:
    """What the stage `caption` does, the loading of the model included."""
    [table] = captions([items], blip, params, MAX_PIXELS, device, workers)
    return table["caption"].to_pylist()


def padding(captioner: Captioner, pixels_BCHW: torch.Tensor) -> float:
    """Return the share of generated tokens that are padding."""
    with torch.inference_mode():
        scaled = captioner.scale(pixels_BCHW.to(captioner.device)).to(captioner.model.dtype)
        tokens = captioner.model.generate(pixel_values=scaled, max_new_tokens=captioner.new_tokens, do_sample=False, num_beams=1)
    pad = captioner.model.config.text_config.pad_token_id
    return (tokens == pad).float().mean().item()


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every precision. Raises `ValueError` if a caption differs on the CPU."""
    on_cpu = device.type == "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = world_pictures(folder / "images", count) if size == "embedded" else photographs(folder / "images", 512, count)
        blip, looped = write_blip(size, folder / "blip"), items if on_cpu else items[:LOOPED]
        reader = PixelReader(blip)
        pixels = torch.stack([reader(decode(item.source.read_bytes(), max_pixels=MAX_PIXELS)) for item in items[:64]])
        loop = notebook(blip, looped, device, Captioner(blip, PARAMS, device).new_tokens)
        if on_cpu and loop() != ours(blip, items, PARAMS, device, 0):
            raise ValueError("the loop and ours wrote different captions")

        def row(precision: str) -> dict[str, object]:
            params = PARAMS.model_copy(update={"precision": precision})
            captioner = Captioner(blip, params, device)

            def tower() -> None:
                scaled = captioner.scale(pixels.to(device)).to(captioner.model.dtype)
                with torch.inference_mode():
                    captioner.model.vision_model(pixel_values=scaled)

            each = {
                "loop": loop,
                "ours": lambda: ours(blip, items, params, device, 1 if on_cpu else ranks.workers()),
                "loading": lambda: Captioner(blip, params, device),
                "batch": lambda: captioner.caption(pixels),
                "tower": synchronised(tower, device),
            }
            seconds = median_seconds(each, rounds=rounds, clock=cpu_seconds if on_cpu else time.perf_counter)
            ms = {key: 1e3 * value for key, value in seconds.items()}
            loop_ms, ours_ms = ms["loop"] / len(looped), (ms["ours"] - ms["loading"]) / count
            fp32 = Captioner(blip, PARAMS, device)
            return {
                "encoders": size,
                "precision": precision,
                "images": count,
                "loop ms/image": loop_ms,
                "ours ms/image": ours_ms,
                "batch ms/image": ms["batch"] / len(pixels),
                "tower ms/image": ms["tower"] / len(pixels),
                "loop / ours": loop_ms / ours_ms,
                "padding": padding(captioner, pixels),
                "other": sum(a != b for a, b in zip(captioner.caption(pixels), fp32.caption(pixels), strict=True)),
            }

        return [row(precision) for precision in (("fp32",) if on_cpu else ("fp32", "bf16"))]


def main() -> None:
    counted = "images", 128, "images of a round"
    over_encoders("captioning", __doc__, measure, larger="base", counted=counted, rounds=3)


if __name__ == "__main__":
    main()
