"""The models of a folder, which of them is shown, and switching to another."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_models import LightnessScorer
from page_values import open_image
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline

from imagebart import InputError
from imagebart.core.errors import WeightsError
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import TextConditioner
from imagebart.ui.actions import Actions
from imagebart.ui.files import unpack_mask
from imagebart.ui.models import Models, find_examples, model_properties
from imagebart.weights.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
FIRST = tiny_pipeline()
CLASS_MODEL = Path(__file__).parents[1] / "fixtures" / "tiny" / "class_cond_custom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, a published one in a folder of its own, and things that are no models."""
    root = tmp_path_factory.mktemp("models")
    tiny_model("text").save_pretrained(root / "words")
    tiny_model("class").save_pretrained(root / "animals")
    tiny_model("none").save_pretrained(root / "plain")
    shutil.copytree(CLASS_MODEL, root / "published" / CLASS_MODEL.name)
    (root / "empty").mkdir()
    (root / "README.md").write_text("no model")
    return root


def models_of(folder: Path | None, **options: Any) -> Models:
    return Models(tiny_pipeline(), folder=folder, **options)


def test_models_are_found_by_their_files(folder: Path, tmp_path: Path) -> None:
    assert list(models_of(folder).folders()) == ["animals", "plain", "published", "words"]
    assert models_of(tmp_path / "missing").choices() == [("tiny", "tiny")]
    late = models_of(tmp_path)
    tiny_model("none").save_pretrained(tmp_path / "late")
    assert list(late.folders()) == ["late"]


def test_a_model_is_loaded_when_asked_for_and_one_is_kept(folder: Path) -> None:
    read: list[str] = []

    def load(path: Path) -> Pipeline:
        read.append(path.name)
        return Pipeline.from_pretrained(path)

    models = models_of(folder, load=load)
    with ThreadPoolExecutor(8) as pool:
        words = list(pool.map(models.get, ["words"] * 8))
    assert read == ["words"] and len({id(pipeline) for pipeline in words}) == 1
    kept = weakref.ref(words[0].model)
    assert models.get("animals").conditioning == "class"
    del words
    gc.collect()
    assert kept() is None


def test_a_published_model_loads(folder: Path) -> None:
    assert models_of(folder).get("published").conditioning == "class"


def test_questions_are_answered_by_the_copy_on_the_cpu(folder: Path) -> None:
    copy = tiny_pipeline()
    models = models_of(folder, questions=copy)
    assert models.for_questions("tiny") is copy and models.get("tiny") is models.first
    assert models.for_questions("plain") is models.get("plain")


def test_a_published_model_that_is_not_here_is_fetched_when_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert [name for _, name in models_of(tmp_path).choices()] == ["tiny"], "where that is not allowed"
    models = models_of(tmp_path, downloads=True)
    assert [name for _, name in models.choices()] == ["tiny", *MODELS]
    name = next(iter(MODELS))

    def ensure(name: str) -> None:
        tiny_model("class").save_pretrained(tmp_path / name)

    monkeypatch.setattr("imagebart.weights.download.ensure_model", ensure)
    changes = Actions(models).switch_model(name)
    assert changes["model"]["value"] == name and changes["choice"]["visible"]


def test_a_download_that_fails_is_said_and_the_first_model_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(name: str) -> None:
        raise WeightsError("/secret/place is full")

    monkeypatch.setattr("imagebart.weights.download.ensure_model", ensure)
    name = next(iter(MODELS))
    with pytest.warns(UserWarning, match="cannot be used"):
        changes = Actions(models_of(tmp_path, downloads=True)).switch_model(name)
    assert changes["model"]["value"] == "tiny"


def test_what_is_no_model_is_refused(folder: Path) -> None:
    for name in ("empty", "../models", "words/../words", "", "nothing"):
        with pytest.raises(InputError, match="choose one of tiny, animals, plain, published, words"):
            models_of(folder).get(name)


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Actions:
    folder = tmp_path_factory.mktemp("models")
    tiny_model("class", scales=3).save_pretrained(folder / "animals")
    tiny_model("none").save_pretrained(folder / "plain")
    Image.new("RGB", (32, 32), "brown").save(example_of(folder / "animals", "1-brown-dog.png"))
    (folder / "animals" / "README.md").write_text("The card of the animals.", encoding="utf-8")
    broken = folder / "broken"
    tiny_model("none").save_pretrained(broken)
    next(broken.glob("*.safetensors")).write_bytes(b"no tensors")
    Image.new("RGB", (32, 32), "red").save(example_of(folder / "first", "1-red-hat.png"))
    return Actions(Models(FIRST, find_examples(folder / "first" / "examples"), folder))


def example_of(model: Path, name: str) -> Path:
    (model / "examples").mkdir(parents=True)
    return model / "examples" / name


@pytest.mark.usefixtures("own_files")
def test_each_model_has_its_own_examples_and_one_without_keeps_the_page_s(actions: Actions) -> None:
    shown = {name: actions.switch_model(name)["examples"] for name in ("animals", "plain", "tiny")}
    assert {name: [e["caption"] for e in one["examples"]] for name, one in shown.items()} == {
        "animals": ["Brown dog"],
        "plain": ["Red hat"],
        "tiny": ["Red hat"],
    }
    assert [one["model"] for one in shown.values()] == list(shown)


def test_a_class_model_shows_its_classes_its_card_and_its_scales(actions: Actions) -> None:
    changes = actions.switch_model("animals")
    assert changes["model"]["value"] == "animals"
    assert changes["choice"]["choices"] == ["cat", "dog", "bird"] and changes["choice"]["visible"]
    assert not changes["words"]["visible"] and changes["card"]["value"] == "The card of the animals."
    assert changes["scales"]["visible"] and changes["scales"]["value"] == 4
    assert "any number of scales" in changes["model_line"]["value"]


def test_an_unconditional_model_takes_no_words(actions: Actions) -> None:
    changes = actions.switch_model("plain")
    hidden = ("words", "choice", "surprise", "suggestions", "guidance")
    assert not any(changes[part]["visible"] for part in hidden)
    assert "no words" in changes["vocabulary"]["value"]


def test_a_model_that_cannot_be_loaded_is_said_and_the_first_is_shown(actions: Actions) -> None:
    with pytest.warns(UserWarning, match="broken cannot be used"):
        changes = actions.switch_model("broken")
    assert changes["model"]["value"] == "tiny" and changes["words"]["visible"]


def test_only_a_model_with_a_judge_can_put_the_best_first(actions: Actions) -> None:
    assert not actions.switch_model("tiny")["best_first"]["visible"]

    judged = Pipeline(tiny_model(), scorer=LightnessScorer())
    assert model_properties(judged)["best_first"]["visible"]


def test_reset_sets_the_model_s_best(actions: Actions) -> None:
    values = actions.reset_settings("tiny")
    assert values["temperature"] == 1 and values["new_seed"] is True
    assert values["guidance"] == FIRST.defaults.guidance


def test_surprises_are_words_that_the_model_knows(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {actions.surprise("tiny")["random_prompt"]["words"] for _ in range(20)}
    assert len(prompts) > 3
    for prompt in prompts:
        assert prompt and FIRST.unknown_words(prompt) == []
    monkeypatch.setattr(FIRST, "surprises", 1)
    single = {actions.surprise("tiny")["random_prompt"]["words"] for _ in range(20)}
    assert single <= {phrase for phrases in FIRST.suggestions.values() for phrase in phrases}
    assert actions.surprise("animals") in [{"choice": [animal]} for animal in ("cat", "dog", "bird")]
    assert actions.surprise("plain") == {}


def test_examples_come_in_order_with_captions(tmp_path: Path) -> None:
    for name in ("02-blue_hat.png", "01-red-curls.png", "7.png"):
        Image.new("RGBA", (16, 16), "red").save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no image")
    found = find_examples(tmp_path)
    assert [example.caption for example in found] == ["Red curls", "Blue hat", "7"]
    assert found[0].image.mode == "RGB"


def test_an_example_brings_a_mask_and_a_prompt_and_keeps_its_names(tmp_path: Path, own_files: None) -> None:
    Image.new("RGB", (32, 24), "blue").save(tmp_path / "1-sea.png")
    mask = Image.new("L", (32, 24))
    mask.paste(255, (0, 0, 16, 24))
    mask.save(tmp_path / "1-sea.mask.png")
    (tmp_path / "1-sea.txt").write_text("a boat\n", encoding="utf-8")
    (example,) = find_examples(tmp_path)
    assert example.prompt == "a boat" and example.caption == "Sea: a boat"
    assert example.mask.tobytes() == mask.tobytes()
    shown = example.thumbnail()
    assert shown.getpixel((24, 12)) == (0, 0, 255) != shown.getpixel((1, 12))
    published = example.publish()
    assert published == example.publish() and (published["prompt"], published["caption"]) == ("a boat", "Sea: a boat")
    assert unpack_mask(published["mask"], (32, 24)).tobytes() == mask.tobytes()
    assert open_image(published["image"]["path"]).tobytes() == example.image.tobytes()
    assert open_image(published["small"]).convert("RGB").tobytes() == shown.tobytes()


def test_the_shipped_examples_are_six_to_eight_triples_whose_words_the_model_knows() -> None:
    examples = find_examples(ROOT / "checkpoints" / "avatars" / "examples")
    known = json.loads((ROOT / "checkpoints" / "avatars" / "config.json").read_text(encoding="utf-8"))
    words = TextConditioner(
        tokens=tuple(known["conditioner"]["tokens"]),
        words=tuple(known["conditioner"]["words"]),
        length=known["conditioner"]["length"],
    )
    assert 6 <= len(examples) <= 8
    for example in examples:
        assert example.mask is not None and example.mask.size == example.image.size and example.mask.getbbox()
        assert example.prompt and words.unknown_words(example.prompt) == []


def test_no_folder_means_no_examples(tmp_path: Path) -> None:
    assert find_examples(tmp_path / "missing") == []
