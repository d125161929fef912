"""Every tensor is where the model is: all that a pipeline does runs on a device that refuses tensors of the CPU.

No GPU is needed (`pretend_device`). The device is registered for good, so that a process of its own runs this.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

JOBS = """
import sys
from dataclasses import replace
import torch
from PIL import Image
from pretend_device import DEVICE, Pretended, PretendedDevice
from tiny_models import tiny_model, tiny_staged_model
from imagebart import Edit, ImageBART, Pipeline
from imagebart.imaging.masks import preset

torch.set_num_threads(1)
image = Image.effect_noise((40, 50), 60).convert("RGB")
soft = Image.linear_gradient("L").resize(image.size)

def jobs(pipe, prompt, settings):
    yield pipe.generate(prompt, seed=1, settings=settings, variants=2)
    yield pipe.edit(image, preset("centre", image.size), prompt, seed=1, settings=settings, feather=2)
    yield pipe.edit(image, soft, prompt, seed=1, settings=settings)
    masks = [preset(name, image.size) for name in ("centre", "left half")]
    yield pipe.edit_batch([Edit(image, mask, one, 3) for mask, one in zip(masks, (prompt, None))])
    yield pipe.vary(image, 0.5, prompt, seed=1, settings=settings)

def last(run):
    for event in run:
        pass
    return event.image.tobytes()

def settings_of(pipe):
    more = {"resamples": 2, "top_p": 0.9, "top_k": 20, "temperature": 1.1}
    kind = {"corrector_steps": 1, "scales": 2} if pipe.any_scales else {}
    return pipe.defaults.replace(**more, **kind, guidance=2.0 if pipe.conditioning == "text" else 1.0)

def tiny(kind):
    if kind == "stages":
        return tiny_staged_model("text")
    model = tiny_model("text", color_hint_grid=2)
    margin = 0 if kind == "denoiser with a window" else None
    model.denoiser.config = model.denoiser.config.replace(context_margin=margin)
    return model

with PretendedDevice():
    try:
        torch.ones(3, device=DEVICE) + torch.ones(3)
        sys.exit("the device took a tensor of the CPU")
    except RuntimeError as error:
        assert "beside one of pretended:0" in str(error)
    for kind in ("denoiser", "denoiser with a window", "stages"):
        here = Pipeline(tiny(kind))
        there = Pipeline(tiny(kind).to(DEVICE))
        assert isinstance(there.model.first_stage.quantize.embedding.weight, Pretended)
        settings = settings_of(here)
        for one, other in zip(jobs(here, "red hair", settings), jobs(there, "red hair", settings), strict=True):
            assert last(one) == last(other), "the same values, computed elsewhere"
    pipe = Pipeline.from_pretrained(sys.argv[1], str(DEVICE), "bfloat16")
    weight = pipe.model.denoiser.align.weight
    assert pipe.model.device == DEVICE and weight.dtype == torch.bfloat16
    mask = pipe.suggest_mask(sys.argv[2], "sunglasses")
    print(pipe.describe(sys.argv[2]))
    last(pipe.edit(sys.argv[2], mask, "sunglasses", seed=1, variants=2, best_first=True))
"""


@pytest.mark.release
@pytest.mark.shipped
def test_nothing_stays_on_the_cpu() -> None:
    if not hasattr(pytest.importorskip("torch.utils.backend_registration"), "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch has no devices made in Python")
    shipped = ROOT / "checkpoints" / "avatars"
    paths = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests' / 'helpers')]!r}\n"
    example = shipped / "examples" / "1-brown-bob-and-a-hoodie.png"
    command = [sys.executable, "-c", paths + JOBS, str(shipped), str(example)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "a brown bob" in done.stdout
