"""Links that leave a model's folder are refused by name: whoever made the folder could show this machine's files."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback_hub import Hub
from model_with_scorer import save_model_with_scorer
from PIL import Image
from tiny_models import tiny_model

from imagebart import Pipeline
from imagebart.atomic_io import OBSOLETE, SAVED
from imagebart.errors import WeightsError
from imagebart.locate import locate
from imagebart.published.hub import push_folder
from imagebart.ui.examples import find_examples

from .checkpoints import CLASS_MODEL, assert_refused, load, same_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a card, a scorer and an example."""
    folder = tmp_path_factory.mktemp("model")
    save_model_with_scorer(folder)
    (folder / "README.md").write_text("A card.")
    (folder / "examples").mkdir()
    for name in ("1-face.png", "1-face.mask.png"):
        Image.new("RGB", (32, 32)).save(folder / "examples" / name)
    (folder / "examples" / "1-face.txt").write_text("a hat")
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def link_out(path: Path) -> None:
    """The same file, outside of the folder."""
    outside = path.parents[1] / f"of-this-machine-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


FILES = ["config.json", "README.md", "first_stage.safetensors", "denoiser.safetensors", "text_encoder.safetensors"]


@pytest.mark.parametrize("name", [*FILES, "judge.safetensors", "heads.safetensors"])
def test_every_file_of_a_model(copy: Path, name: str) -> None:
    link_out(copy / name)
    with pytest.raises(WeightsError, match=f"{name} is a link that leaves the model's folder"):
        Pipeline.from_pretrained(copy)


@pytest.mark.parametrize("name", ["scale1.ckpt", "scale2.ckpt", "scale1.yaml", "scale2.yaml"])
def test_every_published_file(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(CLASS_MODEL, tmp_path / "model"))
    link_out(folder / name)
    assert_refused(folder, f"{name} is a link that leaves the model's folder")


def test_a_link_to_a_folder_is_not_searched_for_published_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "inside").symlink_to(CLASS_MODEL)
    assert_refused(tmp_path / "model", "holds no model")


@pytest.mark.parametrize("name", ["1-face.png", "1-face.mask.png", "1-face.txt", ""])
def test_an_example_with_a_link_is_left_out_and_named(
    copy: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    examples = copy / "examples"
    assert len(find_examples(examples)) == 1
    if name:
        path = tmp_path / name
        (examples / name).rename(path)
        (examples / name).symlink_to(path)
    else:
        link_out(examples)
    with caplog.at_level(logging.WARNING):
        assert find_examples(examples) == []
    assert "is a link that leaves the model's folder" in caplog.text and (name or "1-face.png") in caplog.text


def test_links_within_a_folder_and_to_it_are_fine(copy: Path, tmp_path: Path) -> None:
    (copy / "first_stage.safetensors").rename(copy / "kept")
    (copy / "first_stage.safetensors").symlink_to("kept")
    (tmp_path / "link").symlink_to(copy)
    assert Pipeline.from_pretrained(tmp_path / "link").card == "A card."


def test_a_link_in_place_of_a_half_done_save_touches_nothing_outside(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / OBSOLETE).write_text("mine\n\nconfig.json")
    (outside / "mine").write_text("mine")
    (copy / SAVED).symlink_to(outside)
    before = load(copy)
    assert same_weights(load(copy), before)
    assert {path.name for path in outside.iterdir()} == {OBSOLETE, "mine"} and not (copy / SAVED).is_symlink()


def test_the_hubs_cache_is_of_links_and_they_may_not_leave_it(hub: Hub, copy: Path, tmp_path: Path) -> None:
    tiny_model().push_to_hub("someone/faces")
    folder = locate("someone/faces")
    assert folder.is_relative_to(constants.HF_HUB_CACHE)
    assert (folder / "config.json").is_symlink() and load(folder) is not None
    card = folder / "README.md"
    card.unlink()
    (tmp_path / "secret").write_text("of this machine")
    card.symlink_to(tmp_path / "secret")
    with pytest.raises(WeightsError, match="README.md is a link that leaves"):
        Pipeline.from_pretrained(folder)
    elsewhere = tmp_path / "models--someone--faces" / "snapshots" / "1"  # looks like the cache, and is not
    elsewhere.parent.mkdir(parents=True)
    shutil.copytree(copy, elsewhere)
    (elsewhere / "README.md").rename(tmp_path / "models--someone--faces" / "card")
    (elsewhere / "README.md").symlink_to(tmp_path / "models--someone--faces" / "card")
    with pytest.raises(WeightsError, match="README.md is a link that leaves"):
        Pipeline.from_pretrained(elsewhere)


def test_no_link_is_sent_to_the_hub(hub: Hub, copy: Path) -> None:
    link_out(copy / "README.md")
    with pytest.raises(WeightsError, match="README.md is a link that leaves"):
        push_folder(copy, "someone/faces")
    assert hub.asked == []
