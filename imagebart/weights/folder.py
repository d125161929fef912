"""A model's folder: config.json, and the state_dict of its networks in model.safetensors.

Weights of more than MAX_SHARD_BYTES lie in several files, model-00001-of-00004.safetensors and so on, and
model.safetensors.index.json says which tensor is where, all as huggingface_hub writes them. A text encoder that stages
share is stored once. Beside them may lie README.md, the model card, and examples. The folder of a training run may lack
networks; `imagebart.model.ImageBART.from_pretrained` takes whole models only.

Weights that replace others have a name of their own until those are gone; config.json gives it: with that file the
model is replaced.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch
from huggingface_hub import save_torch_state_dict
from pydantic import model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagebart.core.atomic_io import scratch_folder, write_error
from imagebart.core.errors import WeightsError, format_value, reason_of
from imagebart.core.settings import Settings, Share
from imagebart.models.denoiser import Denoiser, DenoiserConfig, Stage, StageConfig
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About, ImageBARTModel, Model
from imagebart.models.transformer import Linear, TextEncoder, TextEncoderConfig
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.text.conditioners import Conditioner, NoConditioner

CONFIG = "config.json"
TIED = "denoiser.decoder.token_embedding.weight"  # of a denoiser with tied embeddings
CARD = "README.md"
EXAMPLES = "examples"  # a folder of images to start from, see ui/examples.py
WRITTEN = re.compile(r"model(-[0-9a-f]{8})?(-\d+-of-\d+)?\.safetensors(\.index\.json)?")  # the files of weights
MAX_SHARD_BYTES = 9_400_000  # with its header under 9.5 MB; a Space refuses files over 10 MB
MAX_COPIED_BYTES = 2**30  # of a model that is read into memory; larger ones stay in their files
CPU = torch.device("cpu")

Shapes = Mapping[str, tuple[int, ...]]
DTYPES = ("float16", "bfloat16", "float32", "float64")


def parse_dtype(name: str) -> torch.dtype:
    """A floating-point type by its name; raises ValueError for another."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {format_value(name)}, expected one of {', '.join(DTYPES)}")
    return getattr(torch, name)


class ModelConfig(Settings):
    """config.json. While a model is trained it may have some of its networks."""

    format: Literal["imagebart"] = "imagebart"
    version: Literal[2] = 2
    about: About = About()
    conditioner: Conditioner = NoConditioner()
    first_stage: FirstStageConfig | None = None
    text_encoder: TextEncoderConfig | None = None  # one that no network has yet
    denoiser: DenoiserConfig | None = None  # either this
    betas: tuple[Share, ...] = ()  # or these
    stages: tuple[StageConfig, ...] = ()
    weights: str = "model"  # their files are called so, or, where there are none such, model.safetensors

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.denoiser is not None and (self.betas or self.stages):
            raise ValueError("it has a denoiser and stages, or betas; expected either a denoiser or stages with betas")
        if self.betas:
            check_betas(self.betas)
        return self


def check_betas(betas: tuple[float, ...]) -> None:
    """Raises ValueError for what is no schedule, of a file."""
    if not all(0 < beta <= 1 for beta in betas) or betas[-1] != 1:
        raise ValueError(f"betas are {format_value(betas)}, expected numbers in (0, 1] of which the last is 1")


def config_of(model: ImageBARTModel) -> ModelConfig:
    return ModelConfig(
        about=model.about,
        conditioner=model.conditioner,
        first_stage=None if model.first_stage is None else model.first_stage.config,
        text_encoder=None if model.text_encoder is None else model.text_encoder.config,
        denoiser=None if model.denoiser is None else model.denoiser.config,
        betas=model.schedule.betas if model.stages else (),
        stages=tuple(stage.config for stage in model.stages),
    )


def save_folder(
    model: ImageBARTModel, folder: str | PathLike[str], dtype: str = "float32", max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes config.json and weights, floats as dtype, in place of a model that was there; other files stay.

    Whenever the program is killed, the old model is there or the new one. Raises OSError, in one sentence, where they
    cannot be written; the old model is then there.
    """
    state, folder = _stored_state(model, parse_dtype(dtype)), Path(folder)
    try:
        with scratch_folder(folder / ".new") as new:
            old = [path for path in folder.iterdir() if WRITTEN.fullmatch(path.name)]
            name = f"model-{uuid4().hex[:8]}" if old else "model"
            save_torch_state_dict(
                state, new, filename_pattern=f"{name}{{suffix}}.safetensors", max_shard_size=max_shard_bytes
            )
            config = new / CONFIG
            config.write_text(config_of(model).replace(weights=name).model_dump_json(indent=1), encoding="utf-8")
            weights = list(new.glob("model*"))
            for path in weights:
                shutil.copymode(config, path)  # safetensors writes them for their owner alone
            for path in [*weights, config]:
                path.replace(folder / path.name)
            for path in old:
                path.unlink()
            for path in folder.glob(f"{name}.safetensors*"):  # one: the weights, or which shard has which
                path.rename(folder / path.name.replace(name, "model"))
    except (OSError, SafetensorError) as error:
        size = sum(tensor.numel() * tensor.itemsize for tensor in state.values())
        raise write_error(error, folder, size) from error


def _stored_state(model: ImageBARTModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """A model's tensors, floats as dtype, without those that are stored as others, see `_stored_as`."""
    tied = model.denoiser is not None and model.denoiser.config.tied_embeddings
    everything = model.state_dict()
    state: dict[str, Tensor] = {}
    for name, tensor in everything.items():
        other = everything.get(_stored_as(name, tied))
        if other is None or other is tensor or not torch.equal(tensor, other[: len(tensor)] if tied else other):
            state[name] = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)
    return state


def _stored_as(name: str, tied: bool) -> str:
    """The name of the tensor that holds another: of a stage's text encoder that in the finest stage, of tied embeddings
    the decoder's; other names as they are."""
    if tied:
        name = re.sub(r"^denoiser\.(encoder\.token_embedding|decoder\.head|draft_head)\.weight$", TIED, name)
    return re.sub(r"^stages\.\d+\.text\.", "stages.0.text.", name)


def load_networks(
    folder: Path,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    cls: type[Model] = ImageBARTModel,  # type: ignore[assignment]
) -> Model:
    """Reads a model, frozen, which may lack networks. Raises WeightsError naming the file and what is wrong."""
    config = read_config(folder / CONFIG)
    with on_meta_device(folder / CONFIG):
        stages = [Stage(stage, len(config.betas)) for stage in config.stages]
        first_stage = None if config.first_stage is None else FirstStage(config.first_stage)
        network = stages if config.denoiser is None else Denoiser(config.denoiser)
        schedule = Schedule(config.betas) if config.betas else None
        text_encoder = None if config.text_encoder is None else TextEncoder(config.text_encoder)
        model = cls(first_stage, network, config.conditioner, config.about, schedule, text_encoder)
    files = [f"{name}.safetensors" for name in (Path(config.weights).name, "model")]
    places = [folder / f"{file}{kind}" for file in files for kind in (".index.json", "")]
    path = next((place for place in places if place.is_file()), folder / files[1])
    tensors, expected = _read_tensors(path), shapes_of(model)
    tied = config.denoiser is not None and config.denoiser.tied_embeddings
    for name in expected.keys() - tensors.keys():
        if (other := _stored_as(name, tied)) in tensors:
            tensors[name] = tensors[other][: expected[name][0]] if tied else tensors[other]
    check_shapes(path, tensors, expected)
    large = sum(tensor.nbytes for tensor in tensors.values()) > MAX_COPIED_BYTES
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Linear)}
    load_tensors(model, tensors.items(), path, device, dtype, linear if large and device.type == "cpu" else ())
    if config.first_stage is not None:
        check_used_codes(model.first_stage, path)
    return model


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, or of an index's shards: copies, safe from what happens to the files; mapped if large."""
    names = {path.name}
    tensors: dict[str, Tensor] = {}
    try:
        if path.suffix == ".json":
            names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        files = [path.with_name(Path(name).name) for name in sorted(names)]
        large = sum(file.stat().st_size for file in files) > MAX_COPIED_BYTES
        for path in files:
            tensors |= load_file(path, backend="mmap" if large else "pread")
    except Exception as error:  # whatever a file holds
        raise WeightsError(f"{path} is damaged or cannot be read: {reason_of(error)}") from error
    return tensors


def read_config(path: Path) -> ModelConfig:
    """config.json; raises WeightsError naming what is wrong in it."""
    try:
        return ModelConfig.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be used: {error}") from error


@contextmanager
def on_meta_device(where: object) -> Iterator[None]:
    """Modules made here have shapes and no memory; raises WeightsError, naming `where`, if they cannot be made."""
    try:
        with torch.device("meta"), _WithoutInit():
            yield
    except (ValueError, TypeError, LookupError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{where} describes what cannot be built: {error}") from error


class _WithoutInit(TorchFunctionMode):
    """Skips initial values: on the meta device PyTorch would import its compiler for them, 80 MB and two seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            return torch.empty(*args, dtype=torch.long)
        return func(*args, **(kwargs or {}))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(where: object, tensors: Mapping[str, Tensor], expected: Shapes, prefix: str = "") -> None:
    """Raises WeightsError naming the first tensor, after `prefix`, that is missing, unknown or of a wrong shape."""
    for name, shape in expected.items():
        if name not in tensors:
            raise WeightsError(f"{where} lacks the tensor {prefix}{name}, expected it with shape {list(shape)}")
        if tensors[name].shape != shape:
            given = list(tensors[name].shape)
            raise WeightsError(f"{where} has {prefix}{name} of shape {given}, expected {list(shape)}")
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise WeightsError(f"{where} has the tensor {prefix}{unknown[0]:.200}, which this model does not have")


def load_tensors(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    where: object,
    device: torch.device,
    dtype: torch.dtype,
    as_stored: Collection[str] = (),
) -> None:
    """Gives a module its tensors, one at a time, on the device; floats become dtype, but shorter ones of as_stored."""
    expected_state, state = module.state_dict(), {}
    for name, tensor in tensors:
        wanted = expected_state[name]
        if tensor.is_floating_point() != wanted.is_floating_point():
            expected = "floating point" if wanted.is_floating_point() else "whole"
            raise WeightsError(f"{where} has {name} of type {tensor.dtype}, expected {expected} numbers")
        kind = dtype if wanted.is_floating_point() else wanted.dtype
        if name in as_stored and torch.promote_types(tensor.dtype, kind) == kind:
            kind = tensor.dtype  # it is mapped from its file, and converted where it is used
        state[name] = tensor.reshape(wanted.shape).to(device, kind).contiguous()
    module.load_state_dict(state, assign=True)


def check_used_codes(first_stage: FirstStage, where: object) -> None:
    """Raises WeightsError where the list of used codes points outside the codebook or is not ascending."""
    used, size = first_stage.quantize.used, first_stage.config.codebook_size
    if used[0] < 0 or used[-1] >= size or bool((used[1:] <= used[:-1]).any()):
        raise WeightsError(f"{where} has used codes that are not ascending numbers from 0 to {size - 1}")


def read_card(folder: Path) -> str:
    """The text of a folder's README.md, without its YAML header; "" where there is none."""
    path = folder / CARD
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return re.sub(r"\A---\n.*?\n---\n\s*", "", card, flags=re.DOTALL)
