"""``nullscope import-weights``, ``export`` and ``card``: other people's weights in, a tower or a described copy out."""

from __future__ import annotations

from pathlib import Path

import click

from nullscope.cli.shared import FOLDER, PATH, fail


@click.command("import-weights")
@click.argument("detector")
@click.argument("file", type=PATH)
@click.option("--preset", type=click.Choice(["official", "aigibench"]), help="Whose recipe; default: the first that there is.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Another value of the detector's; repeatable.")
@click.option("--backbone", "backbones", multiple=True, metavar="NAME=FOLDER", help="Frozen network; default: of the run.")
@click.option("--out", required=True, type=PATH, help="Folder of the model, such as models/npr_official.")
def import_weights(
    detector: str, file: Path, preset: str | None, params: tuple[str, ...], backbones: tuple[str, ...], out: Path
) -> None:
    """Turn the published checkpoint FILE of DETECTOR into a model folder, which every other command takes.

    The file is read without running anything in it, and must hold the detector's tensors, all of them and no others. The preset
    is conf/detectors/DETECTOR_PRESET.yaml, of the project or, elsewhere, of the package. A frozen network that the file carries
    is compared with the one of --backbone, and not stored twice.

    \b
    Examples:
      nullscope import-weights npr NPR.pth --out models/npr_official
      nullscope import-weights tiny_ladeda ForenSynth_Tiny_LaDeDa.pth --param residual=npr --out models/tiny_ladeda_official
      nullscope import-weights univfd fc_weights.pth --backbone clip=vit_l_14 --out models/univfd_official
      nullscope predict photo.jpg --model models/npr_official
    """
    from nullscope.importing import folders_of, import_weights, preset_config

    try:
        name, config = preset_config(detector, preset, params)
        done = import_weights(file, config, name, out, folders_of(backbones))
    except (ValueError, OSError) as error:
        fail(str(error))
    taken = f" (without {' and '.join(done.unwrapped)})" if done.unwrapped else ""
    click.echo(f"{file}{taken} -> {out}: {name}, official weights")
    known = done.known
    said = f"{known.name}, trained on {known.trained_on}; {known.licence}" if known else "not in our list of released weights"
    click.echo(f"SHA-256 {done.facts.checkpoint}: {said}")


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("out", type=PATH)
def export(model: Path, out: Path) -> None:
    """Write the image tower of MODEL as stock open_clip weights to the file OUT (safetensors), adapters merged.

    Load it with `clip.visual.load_state_dict(safetensors.torch.load_file(OUT))`, strictly.
    """
    import torch
    from safetensors.torch import save_file

    from nullscope.backbones.attention import fused_state_dict
    from nullscope.backbones.clip import load_image_tower
    from nullscope.core.files import replacing
    from nullscope.model_folder import detached, load

    try:
        detector, facts = load(model, torch.device("cpu"))
        if not hasattr(detector, "clip"):
            raise ValueError(f"{model}: {facts.detector} adapts no CLIP; there is no image tower to export")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    state = fused_state_dict(detector.clip.tower)
    if "proj" not in state:  # of a detector on the features before the projection
        state["proj"] = load_image_tower(model / "clip").proj
    with replacing(out) as partial:
        save_file(detached(state), partial)
    click.echo(f"{out}: image tower of {model}, adapters merged")


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--out", type=PATH, help="Folder of a copy with the card in it, ready to be shared; default: print the card.")
def card(model: Path, out: Path | None) -> None:
    """Write the card of MODEL: training data and licences, numbers, promised and achieved false alarms, limits.

    All of it is read from the model's own files and, in a project, from its metrics. With --out a copy of the model is made with
    the card as README.md, in the form that Hugging Face's hub shows.

    \b
    Examples:
      nullscope card models/ns_net-0
      nullscope card models/ns_net-0 --out ns_net_world
    """
    from nullscope.card import card as written
    from nullscope.card import read_metrics
    from nullscope.copying import copy_folder

    try:
        text = written(model, read_metrics(model))
        if out is None:
            click.echo(text)
            return
        with copy_folder(model, out) as partial:
            (partial / "README.md").write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        fail(str(error))
    click.echo(f"{out}: a copy of {model} with its card, README.md")
