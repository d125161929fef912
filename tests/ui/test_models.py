"""The models that can be chosen, switching to another, and the examples of each."""

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
CLASS_MODEL = Path(__file__).parents[1] / "fixtures" / "tiny" / "class_cond_custom"
PUBLISHED = next(iter(MODELS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, one of them damaged, a published one in a folder of its own, and things that are no models."""
    root = tmp_path_factory.mktemp("models")
    for name, kind, scales in (("animals", "class", 3), ("plain", "none", 2), ("broken", "none", 2)):
        tiny_model(kind, scales).save_pretrained(root / name)  # type: ignore[arg-type]
    next((root / "broken").glob("*.safetensors")).write_bytes(b"no tensors")
    (root / "animals" / "examples").mkdir()
    Image.new("RGB", (32, 32), "brown").save(root / "animals" / "examples" / "1-brown-dog.png")
    (root / "animals" / "README.md").write_text("The card of the animals.", encoding="utf-8")
    shutil.copytree(CLASS_MODEL, root / "published" / CLASS_MODEL.name)
    (root / "empty").mkdir()
    (root / "README.md").write_text("no model")
    return root


@pytest.fixture
def models(folder: Path) -> Models:
    return Models(tiny_pipeline(), folder=folder)


def test_models_are_found_by_their_files(models: Models, tmp_path: Path) -> None:
    assert list(models.folders()) == ["animals", "broken", "plain", "published"]
    assert models.get("published").conditioning == "class"
    late = Models(models.first, folder=tmp_path / "later")
    assert late.choices() == [("tiny", "tiny")]
    tiny_model("none").save_pretrained(tmp_path / "later" / "late")
    assert list(late.folders()) == ["late"]
    for name in ("empty", "../models", "plain/../plain", "", "nothing"):
        with pytest.raises(InputError, match="choose one of tiny, animals, broken, plain, published"):
            models.get(name)


def test_a_model_is_loaded_when_asked_for_and_one_is_kept(folder: Path) -> None:
    read: list[str] = []

    def load(path: Path) -> Pipeline:
        read.append(path.name)
        return Pipeline.from_pretrained(path)

    models = Models(tiny_pipeline(), folder=folder, load=load)
    with ThreadPoolExecutor(8) as pool:
        plain = list(pool.map(models.get, ["plain"] * 8))
    assert read == ["plain"] and len({id(pipeline) for pipeline in plain}) == 1
    kept = weakref.ref(plain[0].model)
    assert models.get("animals").conditioning == "class"
    del plain
    gc.collect()
    assert kept() is None


def test_questions_are_answered_by_the_copy_on_the_cpu(folder: Path) -> None:
    copy = tiny_pipeline()
    models = Models(tiny_pipeline(), folder=folder, questions=copy)
    assert models.for_questions("tiny") is copy and models.get("tiny") is models.first
    assert models.for_questions("plain") is models.get("plain")


def test_a_published_model_that_is_not_here_is_fetched_when_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert [name for _, name in Models(tiny_pipeline(), folder=tmp_path).choices()] == ["tiny"], "it is not allowed"
    models = Models(tiny_pipeline(), folder=tmp_path, downloads=True)
    assert [name for _, name in models.choices()] == ["tiny", *MODELS]

    def fails(name: str) -> None:
        raise WeightsError("/secret/place is full")

    def arrives(name: str) -> None:
        tiny_model("class").save_pretrained(tmp_path / name)

    monkeypatch.setattr("imagebart.weights.download.ensure_model", fails)
    with pytest.warns(UserWarning, match="cannot be used"):
        assert Actions(models).switch_model(PUBLISHED)["model"]["value"] == "tiny"
    monkeypatch.setattr("imagebart.weights.download.ensure_model", arrives)
    changes = Actions(models).switch_model(PUBLISHED)
    assert changes["model"]["value"] == PUBLISHED and changes["choice"]["visible"]


def test_a_class_model_shows_its_classes_its_card_its_scales_and_its_examples(models: Models) -> None:
    changes = Actions(models).switch_model("animals")
    assert changes["model"]["value"] == "animals" and changes["card"]["value"] == "The card of the animals."
    assert changes["choice"]["choices"] == ["cat", "dog", "bird"] and changes["choice"]["visible"]
    assert changes["scales"]["visible"] and changes["scales"]["value"] == 4 and not changes["words"]["visible"]
    assert "any number of scales" in changes["model_line"]["value"]
    assert [example["caption"] for example in changes["examples"]["examples"]] == ["Brown dog"]


def test_an_unconditional_model_takes_no_words_and_without_examples_shows_those_of_the_page(folder: Path) -> None:
    models = Models(tiny_pipeline(), find_examples(folder / "animals" / "examples"), folder)
    changes = Actions(models).switch_model("plain")
    hidden = ("words", "choice", "surprise", "suggestions", "guidance", "best_first")
    assert not any(changes[part]["visible"] for part in hidden)
    assert "no words" in changes["vocabulary"]["value"] and changes["examples"]["model"] == "plain"
    assert [example["caption"] for example in changes["examples"]["examples"]] == ["Brown dog"]


def test_a_model_that_cannot_be_loaded_is_said_and_the_first_is_shown(models: Models) -> None:
    with pytest.warns(UserWarning, match="broken cannot be used"):
        changes = Actions(models).switch_model("broken")
    assert changes["model"]["value"] == "tiny" and changes["words"]["visible"]


def test_a_model_with_a_judge_can_put_the_best_first() -> None:
    assert model_properties(Pipeline(tiny_model(), scorer=LightnessScorer()))["best_first"]["visible"]


def test_reset_sets_the_model_s_best(models: Models) -> None:
    models.first.model.about = models.first.model.about.replace(sampling=models.first.defaults.replace(guidance=2.5))
    values = Actions(models).reset_settings("tiny")
    assert (values["temperature"], values["new_seed"], values["guidance"]) == (1, True, 2.5)


def test_surprises_are_words_that_the_model_knows(models: Models) -> None:
    actions, first = Actions(models), models.first
    prompts = {actions.surprise("tiny")["random_prompt"]["words"] for _ in range(20)}
    assert len(prompts) > 3 and all(prompt and first.unknown_words(prompt) == [] for prompt in prompts)
    first.surprises = 1
    single = {actions.surprise("tiny")["random_prompt"]["words"] for _ in range(20)}
    assert single <= {phrase for phrases in first.suggestions.values() for phrase in phrases}
    assert actions.surprise("animals") in [{"choice": [animal]} for animal in ("cat", "dog", "bird")]
    assert actions.surprise("plain") == {}


def test_examples_come_in_order_with_captions_some_with_a_mask_and_a_prompt(tmp_path: Path) -> None:
    for name in ("02-blue_hat.png", "7.png"):
        Image.new("RGBA", (16, 16), "red").save(tmp_path / name)
    Image.new("RGB", (32, 24), "blue").save(tmp_path / "01-the-sea.png")
    mask = Image.new("L", (32, 24))
    mask.paste(255, (0, 0, 16, 24))
    mask.save(tmp_path / "01-the-sea.mask.png")
    (tmp_path / "01-the-sea.txt").write_text("a boat\n", encoding="utf-8")
    (tmp_path / "damaged.png").write_text("no image")
    found = find_examples(tmp_path)
    assert [example.caption for example in found] == ["The sea: a boat", "Blue hat", "7"]
    assert found[1].image.mode == "RGB" and find_examples(tmp_path / "missing") == []
    shown: Any = found[0].thumbnail()
    assert shown.getpixel((24, 12)) == (0, 0, 255) != shown.getpixel((1, 12))
    published = found[0].publish()
    assert published == found[0].publish(), "under the same names"
    assert published["prompt"] == "a boat" and published["caption"] == "The sea: a boat"
    assert unpack_mask(published["mask"], (32, 24)).tobytes() == mask.tobytes()
    assert open_image(published["image"]["path"]).tobytes() == found[0].image.tobytes()
    assert open_image(published["small"]).convert("RGB").tobytes() == shown.tobytes()


@pytest.mark.shipped
def test_the_shipped_examples_are_six_to_eight_triples_whose_words_the_model_knows() -> None:
    model = ROOT / "checkpoints" / "avatars"
    known = json.loads((model / "config.json").read_text(encoding="utf-8"))["conditioner"]
    words = TextConditioner(tokens=tuple(known["tokens"]), words=tuple(known["words"]), length=known["length"])
    examples = find_examples(model / "examples")
    assert 6 <= len(examples) <= 8
    for example in examples:
        assert example.mask is not None and example.mask.size == example.image.size and example.mask.getbbox()
        assert example.prompt and words.unknown_words(example.prompt) == []
