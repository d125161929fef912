"""Our own layout of a model: config.json, first_stage.safetensors, and denoiser.safetensors or stage1 to stageT.

A text encoder that all networks have in common is stored once, in text_encoder.safetensors. A file that would be larger
than Spaces take is split: stage1-1-of-2.safetensors and so on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from imagebart.conditioning import Conditioner, conditioner_from_config
from imagebart.config import Share, from_dict
from imagebart.diffusion import Schedule
from imagebart.memory import too_large
from imagebart.models.denoiser import Denoiser, DenoiserConfig
from imagebart.models.first_stage import FirstStage, FirstStageConfig
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.published import StageConfig, build_stage
from imagebart.weights.bounds import checked_header, read_text
from imagebart.weights.errors import WeightsError
from imagebart.weights.modules import check_codes, check_shapes, fill, shapes_of, without_memory
from imagebart.writing import replace_files, settle

CONFIG = "config.json"
VERSION = 1
LARGEST_FILE = 9_500_000  # bytes of tensors; a Space refuses files over 10 MB
TEXT = "text_encoder"
WEIGHTS = re.compile(r"(first_stage|text_encoder|denoiser|stage\d+)(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class ModelConfig:
    """config.json."""

    format: Literal["imagebart"]
    version: int
    about: About
    first_stage: FirstStageConfig
    conditioner: dict[str, Any]
    denoiser: DenoiserConfig | None = None  # either this
    betas: tuple[Share, ...] = ()  # or these
    stages: tuple[StageConfig, ...] = ()

    def __post_init__(self) -> None:
        if (self.denoiser is None) != bool(self.stages) or len(self.betas) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages, {len(self.betas)} betas and {'no' if self.denoiser is None else 'a'} "
                "denoiser, expected stages with as many betas, or a denoiser alone"
            )


def save_folder(model: ImageBART, folder: Path, dtype: torch.dtype) -> None:
    """Writes a model, replacing one that was there; other files, such as README.md, are left alone."""
    owned = [old.name for old in folder.glob("*.safetensors") if WEIGHTS.fullmatch(old.name)]
    replace_files(folder, _contents(model, config_of(model), dtype), owned)


def config_of(model: ImageBART) -> ModelConfig:
    """What config.json says of a model."""
    return ModelConfig(
        "imagebart",
        VERSION,
        model.about,
        model.first_stage.config,
        model.conditioner.to_config(),
        model.denoiser.config if model.denoiser is not None else None,
        model.schedule.betas if model.stages else (),
        tuple(stage.config for stage in model.stages),
    )


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> ImageBART:
    """Reads a model; raises WeightsError naming the file and what is wrong."""
    try:
        settle(folder)
    except OSError as error:
        raise WeightsError(f"{folder} was half replaced and cannot be put right: {error.strerror}") from error
    config = read_config(folder / CONFIG)
    with without_memory(folder / CONFIG):
        conditioner = conditioner_from_config(config.conditioner)
        first_stage = FirstStage(config.first_stage)
        built = [build_stage(stage, len(config.betas)) for stage in config.stages]
        network = built if config.denoiser is None else Denoiser(config.denoiser)
        schedule = Schedule(config.betas) if config.stages else None
        model = ImageBART(first_stage, network, conditioner, config.about, schedule)
    _check_networks(config, conditioner, folder)
    _read_tensors(first_stage, folder, "first_stage", device, dtype, mapped=False)
    check_codes(first_stage, folder / "first_stage.safetensors")
    mapped = too_large([model], dtype)
    text: dict[str, Tensor] = {}
    if _files(folder, TEXT) and model.text is not None:
        _read_tensors(model.text, folder, TEXT, device, dtype, mapped)
        text = {f"text.{name}": tensor for name, tensor in model.text.state_dict().items()}
    for stem, module in networks(model).items():
        _read_tensors(module, folder, stem, device, dtype, mapped, text)
    return model.requires_grad_(False)


def networks(model: ImageBART) -> dict[str, nn.Module]:
    """What undoes noise in a model, by the names of its files."""
    if model.denoiser is not None:
        return {"denoiser": model.denoiser}
    return {f"stage{stage.config.t}": stage for stage in model.stages}


def _check_networks(config: ModelConfig, conditioner: Conditioner, folder: Path) -> None:
    """Raises WeightsError where networks were made for another conditioner or schedule."""
    for stage, beta in zip(config.stages, config.betas, strict=True):
        if (stage.cond_length, stage.beta) != (conditioner.length, beta):
            raise WeightsError(
                f"{folder / CONFIG}: stage {stage.t} has cond_length {stage.cond_length} and beta {stage.beta}, "
                f"expected the conditioner's {conditioner.length} and the schedule's {beta}"
            )
        if stage.start_token >= stage.decoder.vocab_in:
            raise WeightsError(
                f"{folder / CONFIG}: stage {stage.t} has the start_token {stage.start_token}, "
                f"expected one of {stage.decoder.vocab_in}"
            )
    if config.denoiser is not None and config.denoiser.cond_length != conditioner.length:
        raise WeightsError(
            f"{folder / CONFIG}: the denoiser has cond_length {config.denoiser.cond_length}, "
            f"expected the conditioner's {conditioner.length}"
        )


def _contents(model: ImageBART, config: ModelConfig, dtype: torch.dtype) -> Iterator[tuple[str, bytes]]:
    """The files of a model, one after the other, its configuration last."""
    yield from tensor_files(model.first_stage.state_dict(), "first_stage", dtype, LARGEST_FILE)
    text = _common_text(model)
    if text:
        yield from tensor_files(text, TEXT, dtype, LARGEST_FILE)
    for stem, network in networks(model).items():
        state = network.state_dict()
        own = {name: state[name] for name in state if not (text and name.startswith("text."))}
        yield from tensor_files(own, stem, dtype, LARGEST_FILE)
    yield CONFIG, config_bytes(config)


def _common_text(model: ImageBART) -> dict[str, Tensor]:
    """The tensors of the text encoder that all networks have; {} where there is none, or theirs differ."""
    encoders = [getattr(network, "text", None) for network in networks(model).values()]
    if any(encoder is None for encoder in encoders):
        return {}
    first, *others = (dict(encoder.state_dict()) for encoder in encoders if encoder is not None)
    same = all(o.keys() == first.keys() and all(torch.equal(o[k], first[k]) for k in first) for o in others)
    return first if same else {}


def read_config(path: Path) -> ModelConfig:
    """config.json; raises WeightsError naming what is wrong in it."""
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        raise WeightsError(f"{path} has format version {version!r}, expected {VERSION}: a model saved by this program")
    try:
        return from_dict(ModelConfig, values)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def config_bytes(config: ModelConfig) -> bytes:
    """The text of config.json."""
    return (_readable(asdict(config)) + "\n").encode("utf-8")


def tensor_files(
    state: Mapping[str, Tensor], stem: str, dtype: torch.dtype, largest: int
) -> Iterator[tuple[str, bytes]]:
    """Tensors as a file, or as many as it takes with at most so many bytes each, one after the other."""
    parts = list(_split(state, dtype.itemsize, largest))
    for i, names in enumerate(parts, 1):
        suffix = f"-{i}-of-{len(parts)}" if len(parts) > 1 else ""
        tensors = {name: _stored(state[name], dtype) for name in names}
        yield f"{stem}{suffix}.safetensors", save(tensors, metadata={"format": "pt"})


def _split(tensors: Mapping[str, Tensor], itemsize: int, largest: int) -> Iterator[list[str]]:
    """Names in order, in groups that fit into a file; a tensor that fits into none has one of its own."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        bytes_needed = tensor.numel() * (itemsize if tensor.is_floating_point() else tensor.itemsize)
        if names and size + bytes_needed > largest:
            yield names
            names, size = [], 0
        names.append(name)
        size += bytes_needed
    yield names


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()


def _read_tensors(
    module: nn.Module,
    folder: Path,
    stem: str,
    device: torch.device,
    dtype: torch.dtype,
    mapped: bool,
    given: Mapping[str, Tensor] | None = None,
) -> None:
    """Fills a module from its file or files; mapped: tensors stay there. given: what was read before."""
    known = given or {}
    where = folder / f"{stem}.safetensors"
    try:
        with ExitStack() as stack:
            homes: dict[str, Any] = {}
            for path in _parts(folder, stem):
                where = path
                file = stack.enter_context(safe_open(checked_header(path), framework="pt"))
                twice = sorted(homes.keys() & set(file.keys()))
                if twice:
                    raise WeightsError(f"{path} has the tensor {twice[0]}, which is in another part of {stem} too")
                homes |= dict.fromkeys(file.keys(), file)
            where = folder / f"{stem}.safetensors"
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in homes.items()}
            shapes |= {name: tuple(tensor.shape) for name, tensor in known.items()}
            check_shapes(where, shapes, shapes_of(module))

            def read(name: str) -> Tensor:
                if name in known:
                    return known[name]
                tensor: Tensor = homes[name].get_tensor(name)
                return tensor if mapped else tensor.clone()  # out of the file, which may change later

            fill(module, read, where, device, dtype, mapped)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{where} is damaged or cannot be read: {error}") from error


def _files(folder: Path, stem: str) -> bool:
    """Whether there is a file of this name, or a part of one."""
    return any(WEIGHTS.fullmatch(path.name) for path in folder.glob(f"{stem}*"))


def _parts(folder: Path, stem: str) -> list[Path]:
    """The file, or the files 1-of-n to n-of-n, that hold a module."""
    whole = folder / f"{stem}.safetensors"
    counts = {
        int(path.stem.rpartition("-")[2])
        for path in folder.glob(f"{stem}-*-of-*.safetensors")
        if WEIGHTS.fullmatch(path.name)
    }
    if len(counts) + whole.is_file() > 1:
        raise WeightsError(f"{folder} holds {stem} in more than one way, expected {whole.name} or its parts")
    parts = [folder / f"{stem}-{i}-of-{n}.safetensors" for n in counts for i in range(1, n + 1)] or [whole]
    missing = [path for path in parts if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, expected it beside {CONFIG}")
    return parts


def _readable(value: Any, indent: str = "") -> str:
    """JSON with an indented line for each setting, and lists of plain values on one."""
    if isinstance(value, dict) and value:
        inner = indent + "  "
        lines = [f"{inner}{json.dumps(key)}: {_readable(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + _readable(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
