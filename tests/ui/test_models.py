"""The models that can be chosen, their examples and settings; the controls' values of a run, an image, a link."""

import gc
import math
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_models import LightnessScorer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_values import control_values, noise_image, open_image, sketch_value
from PIL import Image, PngImagePlugin
from tiny_models import tiny_model, tiny_pipeline, tiny_staged_model

from imagebart import InputError
from imagebart.core.errors import WeightsError
from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import Recipe, write_png
from imagebart.pipeline import Pipeline
from imagebart.ui.actions import Actions, Update
from imagebart.ui.controls import NAMES, RESET, SLIDERS, Controls, starting_values
from imagebart.ui.files import unpack_mask
from imagebart.ui.models import Models, find_examples, model_properties
from imagebart.weights.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CLASS_MODEL = ROOT / "tests" / "fixtures" / "tiny" / "class_cond_custom"
PUBLISHED = next(iter(MODELS))
PIPELINE, CLASSES = tiny_pipeline(scales=3), tiny_pipeline("class")
ACTIONS = Actions(Models(PIPELINE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, one of them damaged, a published one in a folder of its own, and things that are no models."""
    root = tmp_path_factory.mktemp("models")
    for name, kind, scales in (("animals", "class", 3), ("plain", "none", 2), ("broken", "none", 2)):
        tiny_model(kind, scales).save_pretrained(root / name)  # type: ignore[arg-type]
    next((root / "broken").glob("*.safetensors")).write_bytes(b"no tensors")
    for name in ("animals/examples/1-brown-dog.png", "no model/1-blue-cat.png"):
        (root / name).parent.mkdir()
        Image.new("RGB", (32, 32)).save(root / name)
    (root / "animals" / "README.md").write_text("The card of the animals.", encoding="utf-8")
    shutil.copytree(CLASS_MODEL, root / "published" / CLASS_MODEL.name)
    (root / "README.md").write_text("no model")
    return root


@pytest.fixture
def models(folder: Path) -> Models:
    return Models(tiny_pipeline(), folder=folder)


def test_models_are_found_by_their_files(models: Models, tmp_path: Path) -> None:
    assert list(models.folders()) == ["animals", "broken", "plain", "published"]
    assert models.get("published").conditioning == "class"
    late = Models(models.first, folder=tmp_path / "later")
    assert late.choices() == [("Tiny", "tiny")]
    tiny_model("none").save_pretrained(tmp_path / "later" / "late")
    assert list(late.folders()) == ["late"]
    for name in ("no model", "../models", "plain/../plain", "", "nothing"):
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


def test_a_published_model_is_fetched_when_it_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_each_model_brings_its_card_controls_scales_and_examples(folder: Path) -> None:
    def captions(changes: Update) -> list[str]:
        return [example["caption"] for example in changes["examples"]["examples"]]

    models = Models(tiny_pipeline(), find_examples(folder / "no model"), folder)
    changes = Actions(models).switch_model("animals")
    assert captions(changes) == ["Brown dog"]
    assert changes["model"]["value"] == "animals" and changes["card"]["value"].endswith("\n\nThe card of the animals.")
    assert changes["choice"]["choices"] == ["cat", "dog", "bird"] and changes["choice"]["visible"]
    assert changes["scales"]["visible"] and changes["scales"]["value"] == 4 and not changes["words"]["visible"]
    assert "any number of scales" in changes["card"]["value"]
    changes = Actions(models).switch_model("plain")
    hidden = ("words", "choice", "surprise", "guidance", "best_first")
    assert not any(changes[part]["visible"] for part in hidden)
    assert "no words" in changes["vocabulary"]["value"] and changes["examples"]["model"] == "plain"
    assert captions(changes) == ["Blue cat"], "of the first model"
    with pytest.warns(UserWarning, match="broken cannot be used"):
        changes = Actions(models).switch_model("broken")
    assert changes["model"]["value"] == "tiny" and changes["words"]["visible"]
    judged = Pipeline(tiny_model(), scorer=LightnessScorer())
    assert model_properties(judged)["best_first"]["visible"]


def test_it_begins_with_the_model_s_best_and_with_steps_to_be_seen(models: Models) -> None:
    """Of a model that takes any number; stages are as many as they are."""
    models.first.model.about = models.first.model.about.replace(sampling=models.first.defaults.replace(guidance=2.5))
    values = Actions(models).reset_settings("tiny")
    assert (values["temperature"], values["new_seed"], values["guidance"]) == (1, True, 2.5)
    assert [starting_values(tiny_pipeline(scales=scales))["scales"] for scales in (1, 2, 5)] == [4, 4, 5]
    assert starting_values(Pipeline(tiny_staged_model(stages=2)))["scales"] == 2


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


def test_the_sliders_ends_mean_off_and_a_new_seed_is_none() -> None:
    plain = Controls(**control_values(PIPELINE))
    assert plain.for_run(PIPELINE)["settings"] == SamplingSettings(scales=3) and plain.crop_context == math.inf
    assert plain.for_run(PIPELINE)["seed"] == 7
    given = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "guidance": 2, "resamples": 2}
    chosen = Controls(**control_values(PIPELINE, context=0.5, new_seed=True, **given))
    assert chosen.for_run(PIPELINE)["settings"] == SamplingSettings(**given, scales=3)
    assert chosen.crop_context == 0.5 and chosen.for_run(PIPELINE)["seed"] is None


def test_each_kind_of_model_is_asked_in_its_way_and_of_several_classes_there_is_an_image_each() -> None:
    asked = Controls(**control_values(PIPELINE, words="hat", choice=["cat"]))
    assert [asked.prompt(tiny_pipeline(kind)) for kind in ("text", "class", "none")] == ["hat", "cat", None]
    assert Controls(**control_values(PIPELINE, choice=[])).prompt(CLASSES) is None
    asked = Controls(**control_values(PIPELINE, choice=["cat", "dog"], variants=3, best_first=True))
    last = list(CLASSES.generate(asked.prompt(CLASSES), **asked.for_run(CLASSES)))[-1]
    assert [recipe.prompt for recipe in last.recipes] == ["cat", "dog"]
    assert asked.for_run(PIPELINE)["variants"] == 3, "of a text model"


SAMPLING = SamplingSettings(temperature=0.8, top_k=40, top_p=None, guidance=2.5, resamples=2, scales=5)
RECIPE = Recipe(
    model="tiny", task="edit", prompt="a hat", seed=11, settings=SAMPLING, feather=7, context=0.75, variant=2
)


def test_an_image_made_here_brings_back_its_prompt_seed_and_settings() -> None:
    image = noise_image((32, 32))
    made = sketch_value(image, None)
    assert ACTIONS.restore_settings(made, None) == {}
    write_png(image, made["image"], RECIPE)
    values = ACTIONS.restore_settings(made, "tiny")
    said = values.pop("messages")
    assert "made here" in said and "another model" not in said and set(values) == {"words", *RESET}
    asked = Controls(**control_values(PIPELINE) | values)
    assert asked.for_run(PIPELINE) == {"settings": SAMPLING, "seed": 13, "variants": 1, "best_first": False}
    assert (asked.words, asked.feather, asked.crop_context) == ("a hat", 7, 0.75)
    write_png(image, made["image"], RECIPE.replace(model="elsewhere", settings={"guidance": 99}))
    values = ACTIONS.restore_settings(made, "tiny")
    assert "elsewhere" in values["messages"] and values["guidance"] == 8, "what the slider can hold"
    for prompt, chosen in (("dog", "dog"), ("cow", "cat")):  # where there is no such class, the first one
        write_png(image, made["image"], RECIPE.replace(prompt=prompt))
        assert Actions(Models(CLASSES)).restore_settings(made, None)["choice"] == [chosen]
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    image.save(made["image"], pnginfo=text)
    assert "recipe" in ACTIONS.restore_settings(made, None)["messages"], "it is damaged"
    Path(made["image"]).unlink()
    assert set(ACTIONS.restore_settings(made, None)) == {"messages"}


def test_a_link_sets_words_seed_and_settings_within_the_sliders_ranges_and_keeps_the_seed() -> None:
    given = {"words": "a hat", "seed": 7, "new_seed": True, "guidance": 3, "top_p": 0.8, "variants": 4}
    found = ACTIONS.open_link({"model": "tiny", **given}, "tiny")
    assert "other" not in found.pop("messages") and found == given | {"new_seed": False}
    found = ACTIONS.open_link({"model": "<faces>", "guidance": 1000, "top_p": -1}, "tiny")
    assert "another model: &lt;faces&gt;" in found["messages"] and (found["guidance"], found["top_p"]) == (8, 0.05)
    assert Actions(Models(CLASSES)).open_link({"choice": ["cat", "dog"]}, None)["choice"] == ["cat", "dog"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["cat", "cow"]),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)
@example({"choice": ["cow"]}, CLASSES)
@example({"choice": ["cat"] * 5}, CLASSES)
@given(st.dictionaries(st.sampled_from([*NAMES, "unheard"]), JSON, max_size=4), st.sampled_from([PIPELINE, CLASSES]))
def test_of_a_link_only_what_a_page_writes_is_taken(link: dict[str, Any], pipeline: Pipeline) -> None:
    found = Actions(Models(pipeline)).open_link(link, None)
    del found["messages"]
    controls = Controls(**control_values(pipeline) | found)
    assert set(found) - {"new_seed"} <= set(link) and "unheard" not in found and not controls.new_seed
    assert set(found.get("choice", [])) <= set(pipeline.classes)
    assert all(s.minimum <= found[s.name] <= s.maximum for s in SLIDERS if s.name in found)
