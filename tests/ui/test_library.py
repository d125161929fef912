"""The models of a folder: found, loaded once, forgotten when there are too many."""

from __future__ import annotations

import gc
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagebart import InputError, Pipeline
from imagebart.testing import tiny_model
from imagebart.ui.model_list import Models
from imagebart.weights import WeightsError

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
    models = Models(folder, most=2)
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
    with pytest.raises(ValueError, match="0 models"):
        Models(folder, most=0)
