"""encoders: params -> data/encoders/{clip,blip,convnext,initial}. After it, no stage touches the network."""

from pathlib import Path

from nullscope.backbones.fetch import EncoderParams, fetch_blip, fetch_clip, fetch_convnext, fetch_initial
from nullscope.core.config import load_params
from nullscope.core.ranks import launch


def main() -> None:
    params = load_params("encoder", EncoderParams)
    sources = (
        ("clip", fetch_clip, params.clip),
        ("blip", fetch_blip, params.blip),
        ("convnext", fetch_convnext, params.convnext),
    )
    for kind, fetch, source in sources:
        out = Path("data/encoders") / kind
        fetch(source, out)
        if source is None:
            continue
        size = sum(file.stat().st_size for file in out.iterdir())
        print(f"encoders: {source.repository}@{source.revision} -> {out} ({size / 1e6:.1f} MB)")
    fetch_initial(params.initial, Path("data/encoders/initial"))
    named = ", ".join(f"{network} from {source}" for network, source in params.initial.items())
    print(f"encoders: weights to begin with: {named or 'none'} -> data/encoders/initial")


if __name__ == "__main__":
    launch(main, alone=True)
