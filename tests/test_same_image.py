"""The same seed draws the same image as when `fixtures/same_image.json` was recorded.

Where only pixels differ, decoding or pasting has changed; where tokens differ, encoding, conditioning or sampling has.
Another processor or torch rounds differently: there, thumbnails (`same_image.png`) must be nearly the same, and tokens
the same, if not in float32, then in float64. `PYTHONPATH=tests/helpers python -m tests.test_same_image` records anew.
"""

import json
import re
import zlib
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_models import tiny_staged_model

from imagebart import Pipeline
from imagebart.imaging import masks

HERE = Path(__file__).parent
RECORD, THUMBNAILS = HERE / "fixtures" / "same_image.json", HERE / "fixtures" / "same_image.png"
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
CASES: dict[str, Any] = RECORDED["cases"]
DAILY = ("edit, feather", "edit, high", "edit, two variants", "generate", "vary, wide", "text, vary")
SIDE, CLOSE = 32, 0.5  # of thumbnails, one below the other; mean difference of two, of 255, at most
BRUSHES = {  # paint, of 255; width and points as shares of the image
    "stroke": (255, 0.09, [(0.2, 0.3), (0.45, 0.18), (0.8, 0.33)]),
    "line": (255, 0.012, [(0.31, 0.47), (0.69, 0.49)]),
    "dot": (255, 0.07, [(0.5, 0.62), (0.52, 0.64)]),
    "faint stroke": (120, 0.2, [(0.3, 0.9), (0.7, 0.75)]),
    "zigzag": (255, 0.04, [(0.1, 0.1), (0.3, 0.4), (0.35, 0.05), (0.55, 0.35), (0.7, 0.08), (0.93, 0.41)]),
}


@cache
def pipeline(model: str, dtype: str) -> Pipeline:
    """A pipeline by its folder, or of a tiny random model ("tiny text"), whose weights depend on their names alone."""
    if model != "tiny text":
        return Pipeline.from_pretrained(HERE.parent / model, dtype=dtype)
    tiny = tiny_staged_model("text")
    for name, parameter in tiny.named_parameters():
        parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return Pipeline(tiny.to(getattr(torch, dtype)))


def upload_and_mask(number: int, name: str, size: list[int] | None) -> dict[str, Image.Image]:
    """An example by its number, transparent if it is higher than wide; with its "own" mask, a preset or a brush's."""
    path = next((HERE.parent / "checkpoints" / "avatars" / "examples").glob(f"{number}-*.txt"))
    upload, mask = (Image.open(path.with_suffix(suffix)) for suffix in (".png", ".mask.png"))
    upload = upload.resize(size or upload.size, Image.Resampling.BICUBIC)
    if upload.height > upload.width:
        upload.putalpha(Image.radial_gradient("L").resize(upload.size))
    if name in BRUSHES:
        mask = Image.new("L", upload.size)
        paint, width, points = BRUSHES[name]
        places = [(x * upload.width, y * upload.height) for x, y in points]
        ImageDraw.Draw(mask).line(places, paint, max(2, round(width * max(upload.size))), joint="curve")
    elif name != "own":
        mask = masks.preset(name, upload.size)
    return {"image": upload, "mask": mask}


def draw(
    task: str,
    prompt: str | list[str] | None = None,
    picture: int | None = None,
    mask: str = "everything",
    size: list[int] | None = None,
    model: str = "checkpoints/avatars",
    sampling: dict[str, Any] | None = None,
    dtype: str = "float32",
    **more: Any,
) -> tuple[dict[str, str], Image.Image]:
    """Calls a method (task) of `Pipeline`: what is recorded of it, and a thumbnail, which is black for words.

    sampling: what differs from the model's own settings, one scale and no corrector; more: its other arguments.
    """
    pipe, found = pipeline(model, dtype), {}
    given = {} if picture is None else upload_and_mask(picture, mask, size)
    shown = given["mask"].getbbox() if task == "edit" else None
    if task == "describe":
        return {"words": pipe.describe(given["image"])}, Image.new("RGB", (SIDE, SIDE))
    if task == "suggest_mask":
        images = [pipe.suggest_mask(given["image"], prompt)]
    else:
        given = {key: given[key] for key in given if key == "image" or task == "edit"}
        defaults = pipe.defaults.replace(scales=1 if pipe.any_scales else None, corrector_steps=0)
        settings = defaults.replace(**sampling or {})
        with patch.object(pipe.model.first_stage, "decode", wraps=pipe.model.first_stage.decode) as decode:
            *_, last = getattr(pipe, task)(**given, prompt=prompt, seed=1, settings=settings, **more)
            images = last.images
        found["tokens"] = sha256(decode.call_args.args[0].numpy().tobytes()).hexdigest()
    pixels = b"".join(f"{image.mode} {image.size} ".encode() + image.tobytes() for image in images)
    found["pixels"] = sha256(pixels).hexdigest()
    return found, images[0].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, shown)


def machine() -> list[str]:
    """The kind of processor, with versions."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    kinds = sorted(set(re.findall(r"^(?:model name|flags)\s*: (.*)", cpu, re.M)))
    return [*kinds, torch.backends.cpu.get_cpu_capability(), f"torch {torch.__version__}", f"Pillow {PIL.__version__}"]


@pytest.mark.shipped
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DAILY else pytest.mark.release) for name in CASES]
)
def test_an_image_is_the_one_that_was_recorded(name: str) -> None:
    recorded = {key: value for key, value in CASES[name].items() if key != "call"}
    found, thumbnail = draw(**CASES[name]["call"])
    if machine() == RECORDED["machine"]:
        assert found == recorded
        return
    if found.get("tokens") != recorded.get("tokens"):
        found, thumbnail = draw(**CASES[name]["call"], dtype="float64")
    assert found.keys() == recorded.keys()
    assert all(found[key] == recorded[key] for key in found if key != "pixels")
    top = SIDE * [*CASES].index(name)
    before = Image.open(THUMBNAILS).crop((0, top, SIDE, top + SIDE))
    assert np.abs(np.asarray(before, int) - np.asarray(thumbnail)).mean() <= CLOSE


@pytest.mark.shipped
@pytest.mark.release
def test_double_precision_draws_the_same_tokens() -> None:
    """So what is drawn where tokens differ, on another machine, is a reference that rounding does not move."""
    for name in DAILY:
        assert draw(**CASES[name]["call"], dtype="float64")[0]["tokens"] == CASES[name]["tokens"], name


if __name__ == "__main__":
    torch.set_num_threads(1)  # as pytest does
    drawn = {name: draw(**case["call"]) for name, case in CASES.items()}
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps({'call': CASES[name]['call'], **found})}"
        for name, (found, _) in drawn.items()
    )
    RECORD.write_text(f'{{\n "machine": {json.dumps(machine())},\n "cases": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    Image.fromarray(np.vstack([thumbnail for _, thumbnail in drawn.values()])).save(THUMBNAILS, optimize=True)
