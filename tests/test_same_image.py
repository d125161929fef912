"""The same seed draws the same image as when `fixtures/same_image.json` was recorded.

The shipped model in float32, and tiny models of the published kinds, draw through `Pipeline` alone. Where only pixels
differ, decoding or pasting has changed; where tokens differ, encoding, conditioning or sampling has. On another kind of
processor, or with another torch, sums are rounded differently: there, most thumbnails (`same_image.png`, of what the
mask covers) must be nearly the same, since now and then another token is chosen.

The JSON file has a case a line: its call, by the arguments of `draw`, and what it drew. `PYTHONPATH=tests/helpers
python -m tests.test_same_image` draws all of them and records it, for new cases and for images that should change.
"""

from __future__ import annotations

import json
import re
import warnings
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
SIDE = 32  # of thumbnails, one below the other
CLOSE, SHARE = 0.5, 0.8  # mean difference of two thumbnails, of 255; how many must be as close as that
BRUSHES = {  # paint, of 255; width and points as shares of the picture
    "stroke": (255, 0.09, [(0.2, 0.3), (0.45, 0.18), (0.8, 0.33)]),
    "line": (255, 0.012, [(0.31, 0.47), (0.69, 0.49)]),
    "dot": (255, 0.07, [(0.5, 0.62), (0.52, 0.64)]),
    "faint stroke": (120, 0.2, [(0.3, 0.9), (0.7, 0.75)]),
    "zigzag": (255, 0.04, [(0.1, 0.1), (0.3, 0.4), (0.35, 0.05), (0.55, 0.35), (0.7, 0.08), (0.93, 0.41)]),
}


@cache
def pipeline(model: str) -> Pipeline:
    """A pipeline by its folder, or of a tiny random model ("tiny text"), whose weights depend on their names alone."""
    if model != "tiny text":
        return Pipeline.from_pretrained(HERE.parent / model)
    tiny = tiny_staged_model("text")
    for name, parameter in tiny.named_parameters():
        parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return Pipeline(tiny)


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
    **more: Any,
) -> tuple[dict[str, str], Image.Image]:
    """Calls a method (task) of `Pipeline`: what is recorded of it, and a thumbnail, which is black for words.

    sampling: what differs from the model's own settings, one scale and no corrector; more: its other arguments.
    """
    pipe, found = pipeline(model), {}
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
            events = getattr(pipe, task)(**given, prompt=prompt, seed=1, settings=settings, **more)
            images = list(events)[-1].images
        found["tokens"] = sha256(decode.call_args.args[0].numpy().tobytes()).hexdigest()
    pixels = b"".join(f"{image.mode} {image.size} ".encode() + image.tobytes() for image in images)
    found["pixels"] = sha256(pixels).hexdigest()
    return found, images[0].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, shown)


def draw_all(recorded: dict[str, Any]) -> tuple[list[str], dict[str, Any], Image.Image]:
    """The kind of machine, with versions; the recorded cases as they are drawn now; and their thumbnails."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    machine = sorted(set(re.findall(r"^(?:model name|flags)\s*: (.*)", cpu, re.M)))
    machine += [torch.backends.cpu.get_cpu_capability(), f"torch {torch.__version__}", f"Pillow {PIL.__version__}"]
    drawn, thumbnails = {}, []
    for name, case in recorded["cases"].items():
        found, thumbnail = draw(**case["call"])
        drawn[name] = {"call": case["call"], **found}
        thumbnails.append(thumbnail)
    return machine, drawn, Image.fromarray(np.vstack(thumbnails))


@pytest.mark.shipped
@pytest.mark.slow
def test_images_are_the_same_as_recorded() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    machine, drawn, thumbnails = draw_all(recorded)
    old: dict[str, Any] = recorded["cases"]
    differ = [(name, key) for name, found in drawn.items() for key in found if found[key] != old[name].get(key)]
    if differ and machine != recorded["machine"]:
        warnings.warn(f"this machine draws differently; compared with a tolerance: {differ}", stacklevel=1)
        away = np.abs(np.asarray(Image.open(THUMBNAILS), int) - thumbnails).reshape(len(drawn), -1).mean(1)
        differ = [] if (away <= CLOSE).mean() >= SHARE else list(zip(drawn, away.round(1), strict=True))
    assert not differ


if __name__ == "__main__":
    torch.set_num_threads(1)  # as pytest does
    machine, drawn, thumbnails = draw_all(json.loads(RECORD.read_text(encoding="utf-8")))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in drawn.items())
    RECORD.write_text(f'{{\n "machine": {json.dumps(machine)},\n "cases": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    thumbnails.save(THUMBNAILS, optimize=True)
