"""Every tensor is where the model is: all that a pipeline does runs on a device that refuses tensors of the CPU.

The device is pretended: its tensors have values, on the CPU, but refuse to meet the CPU's, as a GPU's do and those of
the meta device do not. PyTorch has such a device for good, once it is made: a process of its own runs this file.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pixel_things import SCORER
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from imagebart import Edit, ImageBART, Pipeline
from imagebart.imaging.masks import preset
from imagebart.pipeline import PipelineEvent

NOISE = Image.effect_noise((40, 50), 60).convert("RGB")
ROOT = Path(__file__).parents[1]
DEVICE = torch.device("privateuseone", 0)
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # a GPU takes the CPU's indices


class Pretended(Tensor):
    """A tensor that says that it is on DEVICE."""

    held: Tensor  # its values

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Pretended = Tensor._make_wrapper_subclass(cls, held.size(), **shape, device=DEVICE)  # type: ignore[attr-defined]
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise AssertionError("`PretendedDevice` computes, and has been left")


class PretendedDevice(TorchDispatchMode):
    """While it is entered, operators compute as the device would; RuntimeError where one gets tensors of both."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        pretended = any(isinstance(one, Pretended) for one in tensors)
        wanted = torch.device(kwargs.get("device") or (DEVICE if pretended else "cpu"))
        if wanted != DEVICE and not pretended:
            return func(*args, **kwargs)
        checked = [args[0], *args[2:]] if func in INDEXING else tensors
        strays = [one for one in checked if isinstance(one, Tensor) and not isinstance(one, Pretended) and one.ndim]
        if strays and func not in COPIES:
            raise RuntimeError(f"{func} got a tensor of the CPU, {list(strays[0].shape)}, beside one of the device")
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        args, kwargs = tree_map_only(Pretended, lambda one: one.held, (args, kwargs))
        result = func(*args, **kwargs)
        if func._schema.is_mutable and isinstance(result, Tensor):
            return tensors[0]
        return tree_map_only(Tensor, torch.clone if wanted.type == "cpu" else Pretended, result)


def tiny(kind: str) -> ImageBART:
    if kind == "stages":
        return tiny_staged_model("text")
    return tiny_model("text", layers=True) if kind == "layers" else tiny_model("text", color_hint_grid=2)


def jobs(pipe: Pipeline) -> Iterator[Iterator[PipelineEvent]]:
    masks = [preset(name, NOISE.size) for name in ("center", "left half")]
    settings = pipe.defaults.replace(resamples=2, top_p=0.9, top_k=20, temperature=1.1, guidance=2.0)
    if pipe.any_scales:
        settings = settings.replace(corrector_steps=1, scales=2)
    words = "a red block" if pipe.draws_layers else "red hair"
    given: dict[str, Any] = {"prompt": words, "seed": 1, "settings": settings}
    yield pipe.generate(variants=2, **given)
    for mask in (masks[0], Image.linear_gradient("L").resize(NOISE.size)):
        yield pipe.edit(NOISE, mask, feather=2, exact=True, **given)  # patches are painted in part
    if pipe.draws_layers:
        return
    yield pipe.edit_batch(
        [Edit(NOISE, mask, prompt, 3) for mask, prompt in zip(masks, ("red hair", None), strict=True)]
    )
    yield pipe.vary(NOISE, 0.5, **given)


def run_on_the_pretended_device() -> None:
    with pytest.raises(RuntimeError, match="got a tensor of the CPU"):
        torch.ones(3, device=DEVICE) + torch.ones(3)
    for kind in ("layers", "denoiser", "stages"):
        scorer = SCORER if kind == "layers" else None
        here, there = (Pipeline(model, scorer=scorer) for model in (tiny(kind), tiny(kind).to(DEVICE)))
        assert isinstance(there.model.first_stage.quantize.embedding.weight, Pretended)
        for (*_, one), (*_, other) in zip(jobs(here), jobs(there), strict=True):
            assert one.image.tobytes() == other.image.tobytes(), "the same values, computed elsewhere"
    avatars = ROOT / "checkpoints" / "avatars"
    image = avatars / "examples" / "1-brown-bob-and-a-hoodie.png"
    pipe = Pipeline.from_pretrained(avatars, str(DEVICE), "bfloat16")
    assert pipe.model.device == DEVICE and {one.dtype for one in pipe.model.parameters()} == {torch.bfloat16}
    assert "a brown bob" in pipe.describe(image)
    list(pipe.edit(image, pipe.suggest_mask(image, "sunglasses"), "sunglasses", seed=1, variants=2, best_first=True))


@pytest.mark.release
@pytest.mark.shipped
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch has no devices made in Python",
)
def test_nothing_stays_on_the_cpu() -> None:
    command = [sys.executable, "-m", "tests.test_device_placement"]
    paths = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers")}
    done = subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    backend = backend_registration._DummyBackendModule()
    backend.get_amp_supported_dtype = lambda: [torch.bfloat16]
    backend_registration._setup_privateuseone_for_python_backend(None, backend)
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes what it is given on the CPU and then moves it
    with PretendedDevice():
        run_on_the_pretended_device()
