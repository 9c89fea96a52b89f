"""`Judge`: whatever form an image comes in, one verdict."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, conf_of, noise_image, save_model
from PIL import Image, ImageOps

import nullscope
from nullscope import detectors, model_folder
from nullscope.cli import main
from nullscope.core.contracts import image_id
from nullscope.images.decoder import decode
from nullscope.prediction import FEW, Judge, pixels_id
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole

CPU = torch.device("cpu")
READS_NO_CAPTION = [name for name in detectors.NAMES if name != "advanced_ns_net"]  # which test_cli.py has, with a BLIP


def saved(name, small, folder):
    detector = detectors.build(name, conf_of(name), small.context, seed=0)
    assert not detector.captions_at_inference
    if detector.needs_captions:
        detector.see_captions(small.data(detector).text.chunks())
    with torch.no_grad():
        for parameter_name, parameter in detector.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.1)
    return save_model(folder, detector, name, conf_of(name), small.context)


@pytest.fixture(scope="module")
def judge(small, tmp_path_factory):
    return Judge(saved("clip_lora", small, tmp_path_factory.mktemp("judge") / "clip_lora-0"), "cpu")


def encoded(image, kind="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.fixture
def picture():
    return Image.open(io.BytesIO(noise_image(7, 0, side=40)))


# One score by every door


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READS_NO_CAPTION, "small_resnet"])
def test_the_command_python_and_the_stage_give_the_same_digits(name, small, small_resnet, tmp_path):
    """Paths, bytes, one at a time, many with worker processes, the command, and the table of the stage: all digits equal."""
    model = saved(name, small, tmp_path / "model")
    detector, _ = model_folder.load(model, CPU)
    stage = {}
    for rows in read_whole(small.shards(detector.transform.kind), detector.transform, workers=0):
        stage |= dict(zip(rows.image_ids, logits(detector, rows, CPU), strict=True))
    files = sorted((small.folder / "patches/files").iterdir())
    expected = [stage[image_id(file.read_bytes())] for file in files]
    assert len(expected) == 40 and len(set(expected)) > 30
    alone, many = Judge(model, "cpu"), Judge(model, "cpu", workers=2)
    assert [alone.predict(file).logit for file in files[:6]] == expected[:6]
    assert [alone.predict(file.read_bytes()).logit for file in files[:6]] == expected[:6]
    assert len(files) > FEW and [verdict.logit for verdict in many.predict_many(files)] == expected
    assert [verdict.logit for verdict in many.predict_many(file.read_bytes() for file in files[:5])] == expected[:5]
    result = CliRunner().invoke(main, ["predict", *map(str, files), "--model", str(model), "--json"])
    assert [json.loads(line)["logit"] for line in result.stdout.splitlines()] == expected


def test_load_is_the_door_for_python(small, judge):
    file = str(next((small.folder / "patches/files").iterdir()))
    found = nullscope.load(judge.folder, "cpu").predict(file)
    assert found == judge.predict(file) and found.source == file and 0 < found.score < 1


def test_importing_the_package_imports_nothing_else():
    script = "import sys, nullscope; print([m for m in ('torch', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# What counts as an image


def test_equal_pixels_have_equal_verdicts_whatever_holds_them(judge, picture):
    """An array, a view of one, a PIL image, the same image from another file format."""
    pixels = np.asarray(picture)
    again = Image.open(io.BytesIO(encoded(picture, "BMP")))
    found = [judge.predict(item).logit for item in (pixels, np.asfortranarray(pixels), picture, again, pixels[::-1][::-1])]
    assert found == found[:1] * 5
    assert judge.predict(pixels[:, ::-1]).logit != found[0]


def test_a_file_and_its_pixels_differ_by_the_order_of_the_patches_alone(judge, picture):
    """With the identity of the file, the pixels get the logit of the file."""
    data = encoded(picture)
    file, pixels = judge.predict(data).logit, judge.predict(picture).logit
    assert file != pixels
    arrays = [judge_reader(judge)._arrays(np.asarray(picture), key) for key in (image_id(data), pixels_id(np.asarray(picture)))]
    assert np.array_equal(arrays[0]["image"], arrays[1]["image"]) and not np.array_equal(arrays[0]["order"], arrays[1]["order"])


def judge_reader(judge):
    from nullscope.prediction import _Reader

    return _Reader(judge.detector.transform, judge.facts, model_folder.patches_of(judge.facts), None)


def test_pixels_of_another_shape_are_another_image():
    flat = np.arange(96, dtype=np.uint8)
    assert pixels_id(flat.reshape(4, 8, 3)) != pixels_id(flat.reshape(8, 4, 3))


def oriented(image):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return encoded(image, exif=exif)


@pytest.mark.parametrize(
    "make",
    [
        encoded,
        oriented,
        lambda image: encoded(image, "JPEG"),
        lambda image: encoded(image.convert("L")),
        lambda image: encoded(image.convert("P")),
        lambda image: encoded(image.convert("CMYK"), "TIFF"),
        lambda image: encoded(Image.merge("RGBA", (*image.split(), image.convert("L")))),
        lambda image: encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)),
    ],
    ids=["png", "turned", "jpeg", "grey", "palette", "cmyk", "transparent", "16 bits"],
)
def test_a_pil_image_has_the_pixels_of_its_file(judge, picture, make):
    """By the table of the decoder; and the image is left as it was."""
    data = make(picture)
    image = Image.open(io.BytesIO(data))
    expected = judge.predict(decode(data, max_pixels=10**6))
    before = Image.open(io.BytesIO(data)).convert("RGBA").tobytes()
    assert judge.predict(image).logit == expected.logit
    assert image.convert("RGBA").tobytes() == before


def test_an_image_that_was_turned_by_hand_is_not_turned_again(judge, picture):
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(oriented(picture))))
    assert judge.predict(turned).logit == judge.predict(Image.open(io.BytesIO(oriented(picture)))).logit


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (None, "NoneType"),
        (3, "int"),
        (np.zeros((40, 40, 3), np.float32), r"array \(40, 40, 3\) of float32"),
        (np.zeros((40, 40), np.uint8), r"array \(40, 40\) of uint8"),
        (np.zeros((3, 40, 40), np.uint8), r"array \(3, 40, 40\) of uint8"),
        (np.zeros((40, 40, 4), np.uint8), r"array \(40, 40, 4\) of uint8"),
        (torch.zeros(40, 40, 3, dtype=torch.uint8), "Tensor"),
        (io.BytesIO(b""), "BytesIO"),
    ],
)
def test_what_is_no_image_is_a_type_error_that_says_what_is_accepted(judge, item, found):
    with pytest.raises(TypeError, match=rf"expected a path .*PIL image, or a numpy array \(H, W, 3\).*found.*{found}"):
        judge.predict(item)


# Refusals are verdicts


def test_files_and_pixels_that_are_refused_say_why(judge, tmp_path):
    """Among good ones, in order."""
    (tmp_path / "text.png").write_text("no image")
    good, wide = noise_image(0, 0), np.zeros((1100, 1000, 3), np.uint8)
    cut = Image.open(io.BytesIO(encoded(Image.fromarray(np.asarray(Image.open(io.BytesIO(good)))), "JPEG")[:-600]))
    items = [
        good,
        tmp_path / "text.png",
        b"",
        tmp_path / "missing",
        good,
        wide,
        wide[:5],
        Image.fromarray(wide),
        cut,
        "a\0b",
        good,
    ]
    found = list(judge.predict_many(items))
    expected = [None, "not an image", "empty file", "nothing there", None, "more pixels", "shorter than 8 px", "more pixels"]
    expected += ["damaged image", "null", None]
    for verdict, words in zip(found, expected, strict=True):
        assert (verdict.refused is None) == (words is None)
        assert words is None or (words in verdict.refused and verdict.logit is None)
    assert found[0] == found[4] == found[10]
    assert [verdict.source for verdict in found[:2]] == ["bytes", str(tmp_path / "text.png")]
    for ask in (lambda verdict: verdict.score, lambda verdict: verdict.fake):
        with pytest.raises(ValueError, match="was refused, and has no score: empty file"):
            ask(found[2])


# Many


def test_a_stream_without_an_end_is_judged_as_it_comes(judge, small):
    """No more of it is taken than a chunk."""
    taken, data = [], noise_image(0, 0)

    def endless():
        while True:
            taken.append(1)
            yield data

    verdicts = judge.predict_many(endless())
    first = next(verdicts)
    assert first == next(verdicts) and len(taken) <= 64


def test_no_items_no_verdicts(judge):
    assert list(judge.predict_many([])) == []


def test_threads_of_the_caller_are_left_alone(small, judge):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        nullscope.load(judge.folder).predict(noise_image(0, 0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_captions_for_a_detector_that_reads_none_are_an_error_at_once(judge):
    for ask in (lambda: judge.predict(b"", caption="a ring"), lambda: judge.predict_many([], captions={"a.png": "a ring"})):
        with pytest.raises(ValueError, match="clip_lora needs no captions"):
            ask()


def test_images_of_different_sizes_are_judged_together(judge, small, small_resnet, tmp_path):
    """By a detector that takes images as they are: each as it is alone."""
    alone = Judge(saved(small_resnet, small, tmp_path / "model"), "cpu")
    alone.detector.transform = dataclasses.replace(alone.detector.transform, resize_px=None, test_crop_px=None, crop_px=16)
    files = [noise_image(number, 0, side=side) for number, side in enumerate((40, 33, 40, 50))]
    assert [verdict.logit for verdict in alone.predict_many(files)] == [alone.predict(file).logit for file in files]


@pytest.mark.skipif(os.name != "posix", reason="a folder that may not be read")
def test_a_folder_is_refused_as_a_file(judge, tmp_path):
    assert judge.predict(tmp_path).refused == "a folder"
