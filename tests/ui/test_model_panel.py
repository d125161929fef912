"""Which model is shown, and switching to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from desk import UNCHANGED
from PIL import Image
from torch import Tensor

from imagebart.pipeline import Pipeline
from imagebart.testing import tiny_model, tiny_pipeline
from imagebart.ui import model_list as model_panel
from imagebart.ui.controls import RESET
from imagebart.ui.examples import find_examples
from imagebart.ui.model_list import SWITCHED, Choice, Models


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> Choice:
    folder = tmp_path_factory.mktemp("models")
    tiny_model("class", scales=3).save_pretrained(folder / "animals")
    tiny_model("none").save_pretrained(folder / "plain")
    Image.new("RGB", (32, 32), "brown").save(example_of(folder / "animals", "1-brown-dog.png"))
    (folder / "animals" / "README.md").write_text("The card of the animals.", encoding="utf-8")
    broken = folder / "broken"
    tiny_model("none").save_pretrained(broken)
    next(broken.glob("*.safetensors")).write_bytes(b"no tensors")
    Image.new("RGB", (32, 32), "red").save(example_of(folder / "first", "1-red-hat.png"))
    return Choice(tiny_pipeline(), Models(folder), find_examples(folder / "first" / "examples"))


def example_of(model: Path, name: str) -> Path:
    (model / "examples").mkdir(parents=True)
    return model / "examples" / name


@pytest.mark.usefixtures("own_files")
def test_each_model_has_its_own_examples_and_one_without_keeps_the_page_s(choice: Choice) -> None:
    shown = {name: switched(choice, name)["examples"] for name in ("animals", "plain", "tiny")}
    assert {name: [e["caption"] for e in one["examples"]] for name, one in shown.items()} == {
        "animals": ["Brown dog"],
        "plain": ["Red hat"],
        "tiny": ["Red hat"],
    }
    assert [one["model"] for one in shown.values()] == list(shown)


def switched(choice: Choice, name: str) -> dict[str, Any]:
    return dict(zip(SWITCHED, model_panel.switched(choice, name), strict=True))


def test_a_class_model_shows_its_classes_its_card_and_its_stages(choice: Choice) -> None:
    changes = switched(choice, "animals")
    assert changes["model"] == "animals" and "animals" not in changes["lexicon"]["value"]
    assert changes["choice"]["choices"] == ["cat", "dog", "bird"] and changes["choice"]["visible"]
    assert not changes["words"]["visible"] and changes["card"]["value"] == "The card of the animals."
    assert changes["scales"]["visible"] and changes["scales"]["value"] == 3
    assert "3 stages" in changes["model_line"]["value"]


def test_an_unconditional_model_takes_no_words(choice: Choice) -> None:
    changes = switched(choice, "plain")
    hidden = ("words", "choice", "surprise", "suggestions", "guidance")
    assert not any(changes[part]["visible"] for part in hidden)
    assert "no words" in changes["words_list"]["value"]


def test_a_model_that_cannot_be_loaded_is_said_and_the_first_is_shown(choice: Choice) -> None:
    with pytest.warns(UserWarning, match="broken cannot be loaded"):
        changes = switched(choice, "broken")
    assert changes["model"] == "tiny" and changes["words"]["visible"]


def test_only_a_model_with_a_judge_can_put_the_best_first(choice: Choice) -> None:
    assert not switched(choice, "tiny")["best_first"]["visible"]

    class Indifferent:
        def score(self, images: Tensor, prompt: str) -> Tensor:
            return images.mean((1, 2, 3)) * 0

    judged = Pipeline(tiny_model(), scorer=Indifferent())
    assert model_panel.parts(judged)["best_first"]["visible"]


def test_the_first_model_is_not_loaded_twice(choice: Choice) -> None:
    assert choice.names() == ["tiny", "animals", "broken", "plain"]
    assert choice.get("tiny") is choice.get(None) is choice.first


def test_reset_sets_the_model_s_best(choice: Choice) -> None:
    values = dict(zip(RESET, model_panel.reset(choice, "tiny"), strict=True))
    assert values["temperature"]["value"] == 1 and values["new_seed"]["value"] is True
    assert values["guidance"]["value"] == choice.first.defaults.guidance and values["start"]["value"] == 8


def test_surprises_are_words_that_the_model_knows(choice: Choice) -> None:
    prompts = {model_panel.surprise(choice, "tiny")[0] for _ in range(20)}
    assert len(prompts) > 3
    for prompt in prompts:
        assert prompt and choice.first.unknown_words(prompt) == []
    words, animal = model_panel.surprise(choice, "animals")
    assert words == UNCHANGED and animal in (["cat"], ["dog"], ["bird"])
    assert model_panel.surprise(choice, "plain") == (UNCHANGED, UNCHANGED)
