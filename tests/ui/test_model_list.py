"""The models of a folder, which of them is shown, and switching to another."""

from __future__ import annotations

import gc
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_models import LightnessScorer
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline

from imagebart import InputError
from imagebart.errors import WeightsError
from imagebart.pipeline import Pipeline
from imagebart.ui.examples import find_examples
from imagebart.ui.model_list import ModelChoice, Models, model_properties, reset_settings, surprise, switch_model

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


def test_models_are_found_by_their_files(folder: Path, tmp_path: Path) -> None:
    models = Models(folder)
    assert models.names() == ["animals", "plain", "published", "words"]
    assert Models(tmp_path / "missing").names() == []
    tiny_model("none").save_pretrained(tmp_path / "late")
    late = Models(tmp_path)
    assert late.names() == ["late"]


def test_a_model_is_loaded_when_asked_for_and_only_once(folder: Path) -> None:
    read: list[str] = []

    def load(path: Path) -> Pipeline:
        read.append(path.name)
        return Pipeline.from_pretrained(path)

    models = Models(folder, load=load)
    assert read == []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(models.get, ["words", "animals"] * 8))
    assert sorted(read) == ["animals", "words"]
    assert len({id(pipeline) for pipeline in found}) == 2
    assert [pipeline.conditioning for pipeline in found[:2]] == ["text", "class"]


def test_the_longest_unused_is_forgotten(folder: Path) -> None:
    models = Models(folder, max_loaded=2)
    words, animals = weakref.ref(models.get("words").model), weakref.ref(models.get("animals").model)
    models.get("words")
    models.get("plain")
    gc.collect()
    assert words() is not None and animals() is None
    assert models.get("words").model is words()


def test_models_beside_a_model_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Models(folder).names()
    assert Models.beside(folder / "words").names() == everything
    monkeypatch.chdir(folder / "words")
    assert Models.beside(".").names() == Models.beside("../plain").names() == everything
    (folder / "home").mkdir()  # no model
    monkeypatch.chdir(folder / "home")
    tiny_model("none").save_pretrained("checkpoints/other")
    assert Models.beside("cats_3_scales").names() == ["other"], "where published models are installed"


def test_a_published_model_loads(folder: Path) -> None:
    assert Models(folder).get("published").conditioning == "class"


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("empty", "../models", "words/../words", "", "nothing"):
        with pytest.raises(InputError, match="choose one of animals, plain, published, words"):
            Models(folder).get(name)
    with pytest.raises(InputError, match="holds none"):
        Models(tmp_path).get("words")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        Models(tmp_path).get("broken")
    with pytest.raises(ValueError, match="max_loaded is 0"):
        Models(folder, max_loaded=0)


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> ModelChoice:
    folder = tmp_path_factory.mktemp("models")
    tiny_model("class", scales=3).save_pretrained(folder / "animals")
    tiny_model("none").save_pretrained(folder / "plain")
    Image.new("RGB", (32, 32), "brown").save(example_of(folder / "animals", "1-brown-dog.png"))
    (folder / "animals" / "README.md").write_text("The card of the animals.", encoding="utf-8")
    broken = folder / "broken"
    tiny_model("none").save_pretrained(broken)
    next(broken.glob("*.safetensors")).write_bytes(b"no tensors")
    Image.new("RGB", (32, 32), "red").save(example_of(folder / "first", "1-red-hat.png"))
    return ModelChoice(tiny_pipeline(), Models(folder), find_examples(folder / "first" / "examples"))


def example_of(model: Path, name: str) -> Path:
    (model / "examples").mkdir(parents=True)
    return model / "examples" / name


@pytest.mark.usefixtures("own_files")
def test_each_model_has_its_own_examples_and_one_without_keeps_the_page_s(choice: ModelChoice) -> None:
    shown = {name: switch_model(choice, name)["examples"] for name in ("animals", "plain", "tiny")}
    assert {name: [e["caption"] for e in one["examples"]] for name, one in shown.items()} == {
        "animals": ["Brown dog"],
        "plain": ["Red hat"],
        "tiny": ["Red hat"],
    }
    assert [one["model"] for one in shown.values()] == list(shown)


def test_a_class_model_shows_its_classes_its_card_and_its_scales(choice: ModelChoice) -> None:
    changes = switch_model(choice, "animals")
    assert changes["model"] == "animals" and "animals" not in changes["lexicon"]["value"]
    assert changes["choice"]["choices"] == ["cat", "dog", "bird"] and changes["choice"]["visible"]
    assert not changes["words"]["visible"] and changes["card"]["value"] == "The card of the animals."
    assert changes["scales"]["visible"] and changes["scales"]["value"] == 4
    assert "any number of scales" in changes["model_line"]["value"]


def test_an_unconditional_model_takes_no_words(choice: ModelChoice) -> None:
    changes = switch_model(choice, "plain")
    hidden = ("words", "choice", "surprise", "suggestions", "guidance")
    assert not any(changes[part]["visible"] for part in hidden)
    assert "no words" in changes["vocabulary"]["value"]


def test_a_model_that_cannot_be_loaded_is_said_and_the_first_is_shown(choice: ModelChoice) -> None:
    with pytest.warns(UserWarning, match="broken cannot be loaded"):
        changes = switch_model(choice, "broken")
    assert changes["model"] == "tiny" and changes["words"]["visible"]


def test_only_a_model_with_a_judge_can_put_the_best_first(choice: ModelChoice) -> None:
    assert not switch_model(choice, "tiny")["best_first"]["visible"]

    judged = Pipeline(tiny_model(), scorer=LightnessScorer())
    assert model_properties(judged)["best_first"]["visible"]


def test_the_first_model_is_not_loaded_twice(choice: ModelChoice) -> None:
    assert choice.names() == ["tiny", "animals", "broken", "plain"]
    assert choice.get("tiny") is choice.get(None) is choice.first


def test_reset_sets_the_model_s_best(choice: ModelChoice) -> None:
    values = reset_settings(choice, "tiny")
    assert values["temperature"]["value"] == 1 and values["new_seed"]["value"] is True
    assert values["guidance"]["value"] == choice.first.defaults.guidance


def test_surprises_are_words_that_the_model_knows(choice: ModelChoice) -> None:
    prompts = {surprise(choice, "tiny")["random_prompt"]["words"] for _ in range(20)}
    assert len(prompts) > 3
    for prompt in prompts:
        assert prompt and choice.first.unknown_words(prompt) == []
    choice.first.model.about = choice.first.model.about.replace(surprises=1)
    single = {surprise(choice, "tiny")["random_prompt"]["words"] for _ in range(20)}
    assert single <= {phrase for phrases in choice.first.suggestions.values() for phrase in phrases}
    assert surprise(choice, "animals") in [{"choice": [animal]} for animal in ("cat", "dog", "bird")]
    assert surprise(choice, "plain") == {}
