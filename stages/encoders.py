"""encoders: params -> data/encoders/clip, data/encoders/blip. After it, no stage touches the network."""

from pathlib import Path

from nullscope.backbones.fetch import EncoderParams, fetch_blip, fetch_clip
from nullscope.core.config import load_params
from nullscope.core.ranks import launch


def main() -> None:
    params = load_params("encoder", EncoderParams)
    for kind, fetch, source in (("clip", fetch_clip, params.clip), ("blip", fetch_blip, params.blip)):
        out = Path("data/encoders") / kind
        fetch(source, out)
        size = sum(file.stat().st_size for file in out.iterdir())
        print(f"encoders: {source.repository}@{source.revision} -> {out} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    launch(main, alone=True)
