"""Miniatures of every benchmark's published layout, unpacked and as downloaded, through the index with its own conf file."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from archives.test_reading import split
from hydra import compose, initialize_config_dir
from images.bad_images import photo, save, write_files
from omegaconf import OmegaConf

from nullscope.core.config import validate
from nullscope.sources.dataset import DatasetError, DatasetParams
from nullscope.sources.index import build_index
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table

CONF = Path(__file__).parents[2] / "conf"
CLASSES = ("car", "cat", "chair", "horse")
AIGIBENCH_TEST = [
    "ProGAN",
    "R3GAN",
    "StyleGAN3",
    "StyleGAN-XL",
    "StyleSwim",
    "WFIR",
    "BlendFace",
    "E4S",
    "FaceSwap",
    "InSwap",
    "SimSwap",
    "DALLE-3",
    "FLUX1-dev",
    "Midjourney",
    "GLIDE",
    "Imagen3",
    "SD3",
    "SDXL",
    "BLIP",
    "Infinite-ID",
    "PhotoMaker",
    "InstantID",
    "IP-Adapter",
    "SocialRF",
    "CommunityAI",
]
AIGC_CLASSES = {"progan": ("airplane", "car"), "stylegan": ("bedroom",), "stylegan2": ("church",), "cyclegan": ("apple2orange",)}
AIGC = [
    "progan",
    "cyclegan",
    "biggan",
    "stylegan",
    "stylegan2",
    "gaugan",
    "stargan",
    "whichfaceisreal",
    "deepfake",
    "stable_diffusion_v_1_4",
    "stable_diffusion_v_1_5",
    "ADM",
    "Glide",
    "Midjourney",
    "wukong",
    "VQDM",
    "DALLE2",
]
GENIMAGE = {
    "Midjourney": "imagenet_midjourney",
    "stable_diffusion_v_1_4": "imagenet_ai_0419_sdv4",
    "stable_diffusion_v_1_5": "imagenet_ai_0424_sdv5",
    "ADM": "imagenet_ai_0508_adm",
    "glide": "imagenet_glide",
    "wukong": "imagenet_ai_0424_wukong",
    "VQDM": "imagenet_ai_0419_vqdm",
    "BigGAN": "imagenet_ai_0419_biggan",
}
UFD = ("guided", "ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle")


@dataclass
class Miniature:
    """Files of a layout, how it is packed, and the images of (split, subset, generator, label) that the index must find."""

    conf: str
    files: list[str]
    expected: Counter
    archives: dict[str, str] = field(default_factory=dict)  # archive -> the folder that it holds, with or without its own name
    overrides: tuple[str, ...] = ()


def labelled(folder: str, real: int = 1, fake: int = 1) -> list[str]:
    return [f"{folder}/0_real/r{k}.png" for k in range(real)] + [f"{folder}/1_fake/f{k}.png" for k in range(fake)]


def counted(split: str, subset: str, generator: str, real: int = 1, fake: int = 1) -> Counter:
    return Counter({(split, subset, "real", 0): real, (split, subset, generator, 1): fake})


def training() -> tuple[list[str], Counter]:
    """AIGIBench's folders for training and validation, classes of ProGAN and Stable Diffusion 1.4."""
    files, counts = [], Counter()
    for part, images in (("train", 2), ("val", 1)):
        for subset in (*CLASSES, "sdv1.4"):
            files += labelled(f"{part}/{subset}", images, images)
            counts += counted(part, subset, "SD-1.4" if subset == "sdv1.4" else "ProGAN", images, images)
    return files, counts


def aigibench() -> Miniature:
    files, counts = training()
    files += [name for subset in AIGIBENCH_TEST for name in labelled(f"test/{subset}", 2, 3)]
    counts += sum((counted("test", subset, subset, 2, 3) for subset in AIGIBENCH_TEST), Counter())
    packed = {f"{part}/{name}.zip": f"{part}/{name}" for part in ("train", "val") for name in (*CLASSES, "sdv1.4")}
    packed |= {f"test/{name}.{'tar' if at % 2 else 'zip'}": f"test/{name}" for at, name in enumerate(AIGIBENCH_TEST)}
    return Miniature("aigibench", files, counts, packed)


def aigibench_setting_1() -> Miniature:
    whole = aigibench()
    counts = Counter({key: count for key, count in whole.expected.items() if key[1] != "sdv1.4"})
    return Miniature("aigibench_setting_1", whole.files, counts, whole.archives)


def genimage17() -> Miniature:
    files, counts = training()
    files = [f"AIGIBench/{name}" for name in files]
    for subset in AIGC:
        classes = AIGC_CLASSES.get(subset, ("",))
        files += [name for kind in classes for name in labelled(f"AIGCDetectBenchmark/{subset}/{kind}".rstrip("/"))]
        generator = {"progan": "ProGAN", "stable_diffusion_v_1_4": "SD-1.4"}.get(subset, subset)
        counts += counted("test", subset, generator, len(classes), len(classes))
    files += labelled("AIGCDetectBenchmark/crn")  # ForenSynths has it, the papers' table has not
    packed = {f"AIGCDetectBenchmark/{subset}.zip": f"AIGCDetectBenchmark/{subset}" for subset in AIGC}
    return Miniature("genimage17", files, counts, packed)


def genimage() -> Miniature:
    files = [
        f"{generator}/{inner}/{part}/{kind}/{k}.png"
        for generator, inner in GENIMAGE.items()
        for part in ("train", "val")
        for kind in ("ai", "nature")
        for k in range(2)
    ]
    counts = counted("train", "stable_diffusion_v_1_4", "stable_diffusion_v_1_4", 2, 2)
    for name in GENIMAGE:
        subset = {"glide": "GLIDE"}.get(name, name)
        counts += counted("test", subset, subset, 2, 2)
    packed = {f"{generator}/{inner}.zip": f"{generator}/{inner}" for generator, inner in GENIMAGE.items()}
    return Miniature("genimage", files, counts, packed, ("dataset.val_fraction=0",))


def forensynths() -> Miniature:
    tests = [
        "progan",
        "stylegan",
        "stylegan2",
        "biggan",
        "cyclegan",
        "stargan",
        "gaugan",
        "crn",
        "imle",
        "seeingdark",
        "san",
        "deepfake",
        "whichfaceisreal",
    ]
    files = [name for kind in ("car", "train", "person") for name in labelled(f"train/{kind}")]
    files += [name for kind in ("car", "train", "person") for name in labelled(f"val/{kind}", 2, 2)]
    counts = sum((counted("train", kind, "progan") for kind in ("car", "train", "person")), Counter())
    counts += sum((counted("val", kind, "progan", 2, 2) for kind in ("car", "train", "person")), Counter())
    for subset in tests:
        classes = AIGC_CLASSES.get(subset, ("",))
        files += [name for kind in classes for name in labelled(f"test/{subset}/{kind}".rstrip("/"))]
        counts += counted("test", subset, subset, len(classes), len(classes))
    return Miniature("forensynths", files, counts, {"test/CNN_synth_testset.zip": "test", "val/progan_val.zip": "val"})


def universal_fake_detect() -> Miniature:
    files, counts = training()
    files = [f"AIGIBench/{name}" for name in files]
    files += [f"diffusion_datasets/{real}/0_real/{k}.png" for real in ("imagenet", "laion") for k in range(2)]
    files += [f"diffusion_datasets/{fake}/1_fake/{k}.png" for fake in UFD for k in range(2)]
    counts += Counter({("test", real, "real", 0): 2 for real in ("imagenet", "laion")})
    counts += Counter({("test", fake, fake, 1): 2 for fake in UFD})
    return Miniature("universal_fake_detect", files, counts, {"diffusion_datasets.zip": "diffusion_datasets"})


def dalle_recognition() -> Miniature:
    files = [f"real/{k}.jpg" for k in range(40)] + [f"fakeV2/fake-v2/{k}.jpg" for k in range(40)]
    name = "dalle_recognition"
    counts = Counter({(name, "real", 0): 40, (name, name, 1): 40})
    return Miniature(name, files, counts, {"dalle-recognition-dataset.zip": ""})


def folder() -> Miniature:
    counts = counted("train", "a", "a") + counted("test", "b", "b")
    overrides = ("dataset.train=[a]", "dataset.test=[b]", "dataset.val_fraction=0")
    return Miniature("folder", labelled("a") + labelled("b"), counts, {"a.zip": "a", "b.tar": "b"}, overrides)


MINIATURES: dict[str, Callable[[], Miniature]] = {
    make.__name__: make
    for make in (
        aigibench, aigibench_setting_1, genimage17, genimage, forensynths, universal_fake_detect, dalle_recognition, folder,
    )
}  # fmt: skip


def params_of(conf: str, root: Path, *overrides: str) -> DatasetParams:
    with initialize_config_dir(str(CONF), version_base=None):
        composed = compose("config", overrides=[f"dataset={conf}", f"dataset.root={root}", *overrides])
    return validate("dataset", OmegaConf.to_container(composed.dataset), DatasetParams)


def indexed(params: DatasetParams, out: Path) -> tuple[list[dict], dict]:
    out.mkdir(exist_ok=True)
    counts = build_index(params, min_side_px=16, index_path=out / "index.parquet", rejects_path=out / "rejects.csv", workers=1)
    return read_table(out / "index.parquet", INDEX).to_pylist(), counts


def images(files: list[str]) -> dict[str, bytes]:
    """Each its own bytes: equal ones in two label folders would contradict each other."""
    return {name: save(photo(at, (24, 20)), "JPEG" if name.endswith("jpg") else "PNG") for at, name in enumerate(files)}


def pack_all(root: Path, archives: dict[str, str]) -> None:
    """Replace folders by archives of them, as `zip -r` in the folder above makes them."""
    for name, inside in archives.items():
        path, top = root / name, root / inside
        base = top.parent if inside and top.name == path.stem else top
        files = {file.relative_to(base).as_posix(): file.read_bytes() for file in sorted(top.rglob("*")) if file.is_file()}
        assert files, f"{name}: nothing to pack in {inside}"
        for file in sorted(top.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for member, data in files.items():
                    archive.writestr(member, data)
            continue
        with tarfile.open(path, "w") as archive:
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def groups(rows: list[dict], conf: str) -> Counter:
    """Images by what the index says of them; of DALLE Recognition without the split, which each image draws."""
    keys = ("subset", "generator", "label") if conf == "dalle_recognition" else ("split", "subset", "generator", "label")
    return Counter(tuple(row[key] for key in keys) for row in rows)


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "archives"])
@pytest.mark.parametrize("name", MINIATURES)
def test_a_published_layout_is_read_as_it_is(tmp_path, name, packed):
    mini = MINIATURES[name]()
    root = write_files(tmp_path / "root", images(mini.files))
    if packed:
        pack_all(root, mini.archives)
    rows, counts = indexed(params_of(mini.conf, root, *mini.overrides), tmp_path / "out")
    assert groups(rows, mini.conf) == mini.expected
    assert counts["refused"] == 0
    assert all(("::" in row["source"]) == packed for row in rows) or packed
    assert len({row["image_id"] for row in rows}) == len(rows)


def test_ai_is_fake_in_genimage(tmp_path):
    """Sorted by name, as torchvision's ImageFolder does, it would be real."""
    mini = genimage()
    root = write_files(tmp_path / "g", images(mini.files))
    rows, _ = indexed(params_of("genimage", root, *mini.overrides), tmp_path / "out")
    assert {(row["source"].split("/")[-2], row["label"]) for row in rows} == {("ai", 1), ("nature", 0)}


def test_genimage_is_read_from_zips_in_several_parts(tmp_path):
    mini = genimage()
    root = write_files(tmp_path / "g", images(mini.files))
    pack_all(root, mini.archives)
    for archive in root.rglob("*.zip"):
        split(archive, archive.stat().st_size // 3 + 100, zip64=False)
        assert archive.with_suffix(".z02").exists()
    rows, counts = indexed(params_of("genimage", root, *mini.overrides), tmp_path / "out")
    assert groups(rows, "genimage") == mini.expected
    assert counts["ignored"]["outside_label_folders"]  # the parts before the last, which is the one that is opened


def test_missing_subsets_and_other_counts_are_reported(tmp_path):
    """Not guessed, and no error: half a download is better than none."""
    mini = aigibench()
    files = [name for name in mini.files if "/Imagen3/" not in name and "train/sdv1.4/" not in name]
    root = write_files(tmp_path / "a", images(files))
    rows, counts = indexed(params_of("aigibench", root), tmp_path / "out")
    left = {key: images for key, images in mini.expected.items() if key[1] != "Imagen3" and key[:2] != ("train", "sdv1.4")}
    assert groups(rows, "aigibench") == Counter(left)
    assert counts["unexpected"]["test"]["Imagen3"] == {"real": 0, "fake": 0}
    assert counts["unexpected"]["train"]["sdv1.4"] == {
        "real": 0, "fake": 0, "real_published": 72000, "fake_published": 72000,
    }  # fmt: skip
    assert counts["unexpected"]["test"]["WFIR"] == {"real": 2, "fake": 3, "real_published": 1000, "fake_published": 1000}
    assert "BLIP" not in counts["unexpected"]["test"]  # its counts are in no source of ours


def test_what_no_pattern_asks_for_is_not_missing(tmp_path):
    mini = aigibench_setting_1()
    root = write_files(tmp_path / "a", images(mini.files))
    counts = indexed(params_of("aigibench_setting_1", root, "dataset.test=[test/WFIR]"), tmp_path / "out")[1]
    assert counts["unexpected"]["train"].keys() == set(CLASSES)
    assert counts["unexpected"]["test"].keys() == {"WFIR"}


def test_folders_of_a_paper_s_spelling_are_the_same_subsets(tmp_path):
    mini = aigibench()
    spelt = [name.replace("test/Midjourney/", "test/Midjourney-V6/").replace("InstantID", "Instant-ID") for name in mini.files]
    rows, _ = indexed(params_of("aigibench", write_files(tmp_path / "a", images(spelt))), tmp_path / "out")
    assert groups(rows, "aigibench") == mini.expected


def test_a_manifest_says_what_folders_would(tmp_path):
    names = [f"pile/{k}.png" for k in range(8)]
    root = write_files(tmp_path / "m", images(names))
    lines = [f"{name},{('real', 'fake')[at % 2]},s{at // 4},{('train', 'test')[at // 4]},g{at}" for at, name in enumerate(names)]
    (root / "images.csv").write_text("\n".join(["source,label,subset,split,generator", *lines, "pile/absent.png,real,s1,test,"]))
    params = params_of("manifest", root, "dataset.manifest=images.csv", "dataset.val_fraction=0")
    rows, counts = indexed(params, tmp_path / "out")
    assert groups(rows, "manifest") == Counter(
        {("train", "s0", "real", 0): 2, ("train", "s0", "g1", 1): 1, ("train", "s0", "g3", 1): 1,
         ("test", "s1", "real", 0): 2, ("test", "s1", "g5", 1): 1, ("test", "s1", "g7", 1): 1}
    )  # fmt: skip
    assert counts["refused"] == 1
    assert 'pile/absent.png,"nothing there' in (tmp_path / "out/rejects.csv").read_text()


def test_a_manifest_may_say_val(tmp_path):
    """Its rows are an error where no pattern takes them: they would neither train nor validate."""
    names = [f"pile/{k}.png" for k in range(12)]
    root = write_files(tmp_path / "m", images(names))
    lines = [f"{name},{('real', 'fake')[at % 2]},s,{('train', 'val', 'test')[at // 4]}" for at, name in enumerate(names)]
    (root / "images.csv").write_text("\n".join(["source,label,subset,split", *lines]))
    with pytest.raises(DatasetError, match=r"rows of the manifest say `val` .* give `-S 'dataset.val=\[val/\*\]'"):
        indexed(params_of("manifest", root, "dataset.manifest=images.csv"), tmp_path / "out")
    params = params_of("manifest", root, "dataset.manifest=images.csv", "dataset.val=[val/*]", "dataset.val_fraction=0")
    rows, _ = indexed(params, tmp_path / "out")
    assert {row["source"]: row["split"] for row in rows} == {
        name: ("train", "val", "test")[at // 4] for at, name in enumerate(names)
    }


def test_every_conf_file_has_a_miniature():
    tried = {make().conf for make in MINIATURES.values()}
    assert {path.stem for path in (CONF / "dataset").glob("*.yaml")} == tried | {"manifest", "world"}


def test_packed_and_unpacked_give_the_same_images(tmp_path):
    """The same ids, labels and sizes; only the sources differ."""
    mini = aigibench()
    folders = write_files(tmp_path / "a", images(mini.files))
    shutil.copytree(folders, tmp_path / "b")
    pack_all(tmp_path / "b", mini.archives)
    first, second = (
        indexed(params_of("aigibench", root), tmp_path / f"{root.name}_out")[0] for root in (folders, tmp_path / "b")
    )
    assert [{**row, "source": ""} for row in first] == [{**row, "source": ""} for row in second]
