"""Odd masks, prompts and values for the pipeline, the page and the command line: an image, or a sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from fake_models import FixedDescriber, hat_model
from fuzzing import ANYTHING, FuzzRun, any_text, check_sentence, grey_image
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.queries import Queries
from imagebart.ui.sketchpad.stored_images import view_size
from page_server import FILE, UPLOADED, PageClient, served_to_client
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor

from imagebart.cli import main
from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.settings import SamplingSettings
from imagebart.ui.files import publish
from imagebart.ui.sketchpad.component import unpack_mask

ONE_SCALE = SamplingSettings(scales=1)
MODES = ("L", "1", "P", "LA", "RGB", "CMYK", "I;16", "I", "F")


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


def random_mask(size: tuple[int, int], random: Random) -> npt.NDArray[np.bool_]:
    """What is painted, [H, W]: nothing, everything, one pixel, strokes, noise, a checkerboard."""
    width, height = size
    painted = np.zeros((height, width), bool)
    kind = random.randrange(6)
    if kind == 1:
        painted[:] = True
    elif kind == 2:
        painted[random.randrange(height), random.randrange(width)] = True
    elif kind == 3:
        for _ in range(4):
            painted[random.randrange(height), random.randrange(width) :] = True
    elif kind == 4:
        painted[:] = np.random.default_rng(random.randrange(2**32)).random((height, width)) < random.random()
    elif kind == 5:
        painted[::2, 1::2] = True
    return painted


def mask_image(painted: npt.NDArray[np.bool_], mode: str) -> Image.Image:
    """A mask as an image of a mode, white or opaque where it is painted."""
    white = painted.astype(np.uint8) * 255
    if mode == "opaque RGBA":
        return Image.fromarray(white).convert("RGBA")
    if mode == "clear RGBA":
        ink = 255 * painted.all()  # what is opaque everywhere is a grey image: only its white is painted
        return Image.fromarray(np.dstack([np.full((*white.shape, 3), ink, np.uint8), white]))
    return grey_image(white, mode)


def test_what_is_not_painted_stays(fuzz_run: FuzzRun, pipe: Pipeline) -> None:
    for case, random in fuzz_run.cases(11, 660):
        size = random.choice([(32, 32), (37, 50), (16, 90), (120, 20), (70, 64)])
        painted, mode = random_mask(size, random), random.choice((*MODES, "opaque RGBA", "clear RGBA"))
        pixels = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (size[1], size[0], 4), np.uint8)
        image = Image.fromarray(pixels).convert(random.choice(["RGB", "RGBA"]))
        feather, context = random.choice([0, 0, 1, 7, 1000]), random.choice([0.0, 0.5, 1e308, float("inf")])
        mask, options = mask_image(painted, mode), {"exact": random.random() < 0.5, "context": context}
        try:
            *_, last = pipe.edit(image, mask, "a hat", settings=ONE_SCALE, feather=feather, **options)
        except InputError as error:
            assert not painted.any(), (case, mode, error)
            continue
        allowed = painted if options["exact"] else np.asarray(last.mask) > 0
        changed = (np.asarray(last.image) != np.asarray(image)).any(axis=-1)
        assert last.image.mode == image.mode and not (changed & ~allowed).any(), (case, mode)


def test_any_text_is_a_prompt(fuzz_run: FuzzRun, pipe: Pipeline) -> None:
    for case, random in fuzz_run.cases(30, 3000):
        prompt = any_text(random)
        first = next(pipe.generate(prompt, seed=1, settings=ONE_SCALE))
        assert first.kind == "start" and first.recipe.to_json(), (case, prompt)
        pipe.unknown_words(prompt)
        pipe.corrections(prompt)


class LightImageScorer:
    """Describes light images only."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return images.mean((1, 2, 3))

    def describe(self, image: Tensor) -> str | None:
        return "a hat" if image.mean() > 0 else None

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        return (f"{prompt}, a hat", "a hat") if image.mean() > 0.5 else None


@pytest.fixture(scope="module")
def hat_pipe() -> Pipeline:
    return Pipeline(hat_model(), scorer=LightImageScorer())


def random_image(random: Random) -> Image.Image:
    """A grey image of any mode and size, dark or light."""
    width, height = random.choice([(16, 16), (32, 32), (37, 50), (16, 90), (900, 17), (64, 64)])
    return grey_image(np.full((height, width), random.randrange(256), np.uint8), random.choice((*MODES, "RGBA")))


def random_prompt(random: Random) -> str:
    return random.choice(["", "a hat, "]) + any_text(random)


def test_a_mask_and_a_description_of_any_image_are_made_or_refused(fuzz_run: FuzzRun, hat_pipe: Pipeline) -> None:
    found = 0
    for case, random in fuzz_run.cases(12, 1000):
        image = random_image(random)
        try:
            mask = hat_pipe.suggest_mask(image, random_prompt(random))
        except InputError as error:
            check_sentence(str(error), case)
        else:
            found += 1
            assert mask.mode == "L" and mask.size == image.size and mask.getbbox() is not None, case
        try:
            assert hat_pipe.describe(image) == "a hat", case
        except InputError as error:
            check_sentence(str(error), case)
    assert found, "nothing was found"


def test_the_sketchpad_is_answered_with_a_mask_or_a_sentence(fuzz_run: FuzzRun, hat_pipe: Pipeline) -> None:
    queries, private = Queries(ModelChoice(hat_pipe)), (str(Path.cwd()), os.environ["GRADIO_TEMP_DIR"], "Traceback")
    paths_and_masks = ["/etc/passwd", "../app.py", [16, 16], [10**30, 1], "255 10", "-1 5 " * 9]
    for case, random in fuzz_run.cases(30, 1000):
        image = random_image(random).convert("RGB")
        pad = {"version": 3, "image": publish(image), "size": list(image.size), "mask": ""}
        for _ in range(random.choice([0, 0, 1, 2])):
            pad[random.choice(list(pad))] = random.choice(ANYTHING + paths_and_masks)
        value = random.choice([pad] * 9 + [None])
        model = random.choice([None, "x", hat_pipe.name])
        select = random.random() < 0.7
        prompt = random_prompt(random)
        update = queries.select_by_prompt(value, model, prompt) if select else queries.describe_image(value, model)
        answer, messages = update["answer"], update["messages"]
        sent = orjson.dumps(update).decode()  # as Gradio sends it
        assert not any(text in sent for text in private), (case, sent)
        assert answer["task"] == ("select" if select else "describe"), case
        if messages:
            assert not answer.keys() & {"mask", "caption"}, case
        elif select:
            assert unpack_mask(answer["mask"], view_size(image.size)).getbbox() is not None, case
        else:
            assert answer["caption"] == "a hat", case


@pytest.fixture(scope="module")
def page(pipe: Pipeline) -> Iterator[PageClient]:
    with served_to_client(pipe) as page:
        yield page


FILES: list[Any] = [
    *({"path": ""}, {**FILE, "path": ""}, {**FILE, "path": "/etc/passwd"}, {**FILE, "path": "../../app.py"}),
    *({**FILE, "path": "a\0b"}, {**FILE, "path": "x" * 5000}, {**FILE, "path": 3}, {**FILE, "path": None}, FILE),
    {**FILE, "path": "http://127.0.0.1:1/x.png"},
]
VALID_CALLS: dict[str, list[Any]] = {
    "edit": [UPLOADED, None, "centre", "a hat", 1, None, 1, False],
    "generate": ["a hat", 1, None, 1],
    "vary": [UPLOADED, 0.3, "a hat", 1, None, 1],
    "suggest_mask": [UPLOADED, "a hat"],
    "describe": [UPLOADED],
}
SENTENCE = re.compile(r'"error": "[A-Z](?:[^"\\]|\\.)*\."|"detail"')


def random_call(random: Random) -> tuple[str, list[Any]]:
    """An endpoint, and values of which one or two are of any kind, or some are missing."""
    name = random.choice(list(VALID_CALLS))
    values = list(VALID_CALLS[name])
    for _ in range(random.choice([1, 1, 2])):
        values[random.randrange(len(values))] = random.choice(ANYTHING + FILES)
    return name, values[: random.randrange(len(values))] if random.random() < 0.05 else values


def test_a_call_ends_with_an_image_or_a_sentence(
    fuzz_run: FuzzRun, page: PageClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for case, random in fuzz_run.cases(15, 1000):
        name, values = random_call(random)
        answer = page.call(name, values)
        if "event: complete" in answer:
            continue
        assert SENTENCE.search(answer), (case, name, values, answer)
        for private in (os.getcwd(), str(page.folder), "Traceback", "error 0", "site-packages"):
            assert private not in answer.replace(page.image, ""), (case, name, values, answer)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err + caplog.text
    assert [path for path in page.folder.rglob("tmp*") if path.is_file()] == []


OPTION_VALUES = [
    *("", "--", "-", "--seed", "0", "-1", "1e999", "nan", "inf", "9" * 400, "x", "0x10", "١", "1.5", "2**3", "a b"),
    *("\ud800", "/", "."),
]
OPTIONS = [
    *("--seed", "--variants", "--temperature", "--top-k", "--top-p", "--guidance", "--resamples", "--scales"),
    *("--prompt", "--model", "--out", "--like", "--steps-out", "--nothing"),
]


def test_a_command_ends_with_an_image_or_a_sentence(
    fuzz_run: FuzzRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model("text", scales=1).save_pretrained(tmp_path / "model")
    for case, random in fuzz_run.cases(8, 300):
        options = {"--model": "model", "--out": "out.png", "--seed": "1"}
        for _ in range(random.choice([1, 1, 2])):
            options[random.choice(OPTIONS)] = random.choice(OPTION_VALUES)
        arguments = ["generate", *(f"{name}={value}" for name, value in options.items())]
        try:
            code = main(arguments)
        except SystemExit as end:  # raised while options are read
            code = end.code
        printed = capsys.readouterr().err
        assert code in (0, 2), (case, arguments)
        assert "Traceback" not in printed and (code == 0 or printed.strip()), (case, arguments)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


ODD: list[Any] = [
    *ANYTHING,
    *(
        1.0,
        -0.0,
        10**5000,
        Decimal("0.5"),
        Decimal("nan"),
        Fraction(1, 2),
        1j,
        np.float64(0.5),
        np.int64(2),
        np.bool_(1),
    ),
    *(np.ones(3), np.array("a hat"), np.str_("a hat"), b"a hat", bytearray(b"x"), memoryview(b"x"), Path("a hat")),
    *(
        {1, 2},
        frozenset({"a"}),
        ["a", ["b"]],
        [["a hat"]],
        ["a", 1.5],
        [None],
        ("a hat",),
        range(2),
        range(10**9),
        [b"x"],
    ),
    *(iter(["a"]), object(), Unshowable(), Image.new("L", (32, 32), 255), Image.new("RGB", (0, 0)), len, int, Ellipsis),
]
TASKS = {
    "edit": (
        *("image", "mask", "prompt", "seed", "settings", "exact", "movable", "remove", "feather", "context"),
        *("variants", "best_first"),
    ),
    "generate": ("prompt", "seed", "settings", "variants", "best_first"),
    "vary": ("image", "strength", "prompt", "seed", "settings", "variants", "best_first"),
    "suggest_mask": ("image", "prompt"),
    "describe": ("image",),
    "fit_mask": ("image", "mask", "prompt"),
}


@pytest.mark.parametrize("kind", ["text", "class", "none"])
def test_values_of_any_type_are_an_input_error_or_right(fuzz_run: FuzzRun, kind: Any) -> None:
    pipe = tiny_pipeline(kind)
    pipe.scorer = FixedDescriber("a hat")
    image = Image.new("RGB", (32, 32), "red")
    usual = {"image": image, "mask": Image.new("L", (32, 32), 255), "strength": 0.5, "settings": ONE_SCALE}
    usual["prompt"] = {"text": "a hat", "class": "cat", "none": None}[kind]
    refused = 0
    for case, random in fuzz_run.cases(150, 2000):
        task, names = random.choice(list(TASKS.items()))
        odd = {name: random.choice(ODD) for name in random.sample(names, random.choice([1, 1, 1, min(2, len(names))]))}
        given = {name: value for name, value in usual.items() if name in names} | odd
        try:
            found = getattr(pipe, task)(**given)
            first = next(found) if task in ("edit", "generate", "vary") else None
        except InputError as error:
            refused += 1
            check_sentence(str(error), f"{case}: {task} {list(odd)}")
        else:
            assert first is None or first.recipe.task == task, case
            for name in odd.keys() & {"seed", "strength", "feather", "context"}:
                right = float(odd[name]) if name == "context" and odd[name] is not None else odd[name]
                assert odd[name] is None or getattr(first.recipe, name) == right, (case, name)
                assert not isinstance(odd[name], bool | np.bool_), (case, name)
    assert refused
