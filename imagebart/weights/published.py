"""Loads the checkpoint files as they were published: scale1.ckpt (the finest stage) to scaleT.ckpt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from imagebart.conditioning import conditioner_from_config
from imagebart.diffusion import Schedule
from imagebart.memory import too_large
from imagebart.models.first_stage import FirstStage, FirstStageConfig
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.published import Stage, StageConfig, build_stage
from imagebart.weights.description import Description
from imagebart.weights.errors import WeightsError
from imagebart.weights.folder import VERSION, ModelConfig
from imagebart.weights.layout import Layout, stage_layout
from imagebart.weights.modules import check_codes, check_shapes, fill, shapes_of, without_memory
from imagebart.weights.original_config import read_description
from imagebart.weights.registry import MODELS, PublishedModel
from imagebart.weights.unpickle import StoredTensor, read_tensors

Tensors = dict[str, StoredTensor]


class Scale:
    """One checkpoint file, sorted into its parts. Tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tensors = read_tensors(path)
        self.raw = _under(tensors, "transformer.")
        self.averaged = _under(tensors, "transformer_ema.")
        self.first_stage = _under(tensors, "first_stage_model.")
        other = set(tensors) - {"alphats", "alphacum", "sos_token"}
        other = {n for n in other if n.split(".")[0] not in ("transformer", "transformer_ema", "first_stage_model")}
        if other or "alphats" not in tensors:
            raise WeightsError(
                f"{path} {'has the tensor ' + min(other) if other else 'lacks the tensor alphats'}, expected the "
                "published layout: transformer.*, transformer_ema.*, first_stage_model.*, alphats"
            )
        alphats = tensors["alphats"]
        if len(alphats.shape) != 1 or not 2 <= alphats.shape[0] <= 1001:
            raise WeightsError(f"{path} has alphats of shape {list(alphats.shape)}, expected T + 1 numbers")
        self.betas = tuple(1 - alpha for alpha in alphats.read().double().tolist()[1:])
        start = tensors["sos_token"].read().flatten().tolist() if "sos_token" in tensors else [0]
        if len(start) != 1 or not isinstance(start[0], int) or start[0] < 0:
            raise WeightsError(f"{path} has the sos_token {start}, expected one token")
        self.start_token: int = start[0]

    def weights(self, layout: Layout) -> Tensors:
        """A stage's trained tensors by their raw names: the averaged (EMA) ones where the file has them."""
        trained = {name: tensor for name, tensor in self.raw.items() if name not in layout.buffers}
        averaged = {n: t for n, t in self.averaged.items() if n not in ("decay", "num_updates")}
        if not averaged:
            return trained
        flat = {name.replace(".", ""): name for name in trained}  # the averaged ones' names lost their dots
        expected = {short: trained[name].shape for short, name in flat.items()}
        check_shapes(self.path, _shapes(averaged), expected, "transformer_ema.")
        return {name: averaged[short] for short, name in flat.items()}


def load_published(folder: Path, device: torch.device, dtype: torch.dtype) -> ImageBART:
    """The model of a folder with published files, described by scaleN.yaml beside them or by the registry.

    Raises WeightsError naming the file and what is wrong.
    """
    files, config = describe(folder)
    total = len(config.stages)
    first_stage = load_first_stage(Scale(scale_path(files, 1)), config.first_stage, device, dtype)
    with without_memory(folder):
        shapes = [build_stage(stage, total) for stage in config.stages]
    mapped = too_large(shapes, dtype)
    stages = [load_stage(Scale(scale_path(files, s.t)), s, total, device, dtype, mapped) for s in config.stages]
    try:
        conditioner = conditioner_from_config(config.conditioner)
        return ImageBART(first_stage, stages, conditioner, config.about, Schedule(config.betas))
    except ValueError as error:
        raise WeightsError(f"{files}: {error}") from error


def describe(folder: Path) -> tuple[Path, ModelConfig]:
    """Where a folder's published files lie, and what they hold; their weights are not read.

    Raises WeightsError naming the file and what is wrong.
    """
    files, model = _find(folder)
    scale = Scale(scale_path(files, 1))
    schedule = _schedule(scale)
    paths = [scale_path(files, t) for t in range(1, schedule.stages + 1)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, expected scale1.ckpt to {paths[-1].name} beside each other")
    described = [_describe(path.with_suffix(".yaml"), model, t, len(paths)) for t, path in enumerate(paths, 1)]
    first_config, conditioner = described[0].first_stage, described[0].conditioner
    for path, other in zip(paths, described, strict=True):
        if other.first_stage != first_config or other.conditioner.to_config() != conditioner.to_config():
            raise WeightsError(f"{path.with_suffix('.yaml')} has another first stage or conditioner than scale1.yaml")
    numbered = enumerate(zip(paths, described, strict=True), 1)
    stages = tuple(_stage_config(path, description, t, schedule) for t, (path, description) in numbered)
    about = About(model.name, model.knows) if model else About(folder.resolve().name)
    told = (model.named(conditioner) if model else conditioner).to_config()
    return files, ModelConfig("imagebart", VERSION, about, first_config, told, None, schedule.betas, stages)


def scale_path(files: Path, t: int) -> Path:
    """The checkpoint of stage t."""
    return files / f"scale{t}.ckpt"


def _stage_config(path: Path, description: Description, t: int, schedule: Schedule) -> StageConfig:
    """Stage t with what its checkpoint says: raises WeightsError where that is not of this schedule."""
    scale = Scale(path)
    if scale.betas != schedule.betas:
        raise WeightsError(f"{path} has the betas {scale.betas}, expected scale1.ckpt's {schedule.betas}")
    config = description.stage_config(t, schedule.betas[t - 1], scale.start_token)
    if scale.start_token >= config.decoder.vocab_in:
        raise WeightsError(f"{path} has the sos_token {scale.start_token}, expected one of {config.decoder.vocab_in}")
    return config


def load_first_stage(scale: Scale, config: FirstStageConfig, device: torch.device, dtype: torch.dtype) -> FirstStage:
    """The VQGAN that a checkpoint file carries; its tensors have our names."""
    tensors = dict(scale.first_stage)
    with without_memory(scale.path):
        module = FirstStage(config)
    expected = shapes_of(module)
    if config.used_codes is None and "quantize.used" not in tensors:
        del expected["quantize.used"]
    check_shapes(scale.path, _shapes(tensors), expected, "first_stage_model.")

    def read(name: str) -> Tensor:
        return tensors[name].read() if name in tensors else torch.arange(config.codebook_size)

    fill(module, read, scale.path, device, dtype)
    check_codes(module, scale.path)
    return module


def load_stage(
    scale: Scale, config: StageConfig, stages: int, device: torch.device, dtype: torch.dtype, mapped: bool
) -> Stage:
    """The stage of a checkpoint file, from its averaged weights; mapped: they stay in the file where they can."""
    with without_memory(scale.path):
        module = build_stage(config, stages)
    layout = stage_layout(config)
    expected = layout.published_shapes(shapes_of(module))
    check_shapes(scale.path, _shapes(scale.raw), expected, "transformer.")
    weights = scale.weights(layout)

    def read(name: str) -> Tensor:
        parts = [weights[part].read(mapped) for part in layout.sources[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    fill(module, read, scale.path, device, dtype)
    return module


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _schedule(scale: Scale) -> Schedule:
    try:
        return Schedule(scale.betas)
    except ValueError as error:
        raise WeightsError(f"{scale.path}: {error}") from error


def _find(folder: Path) -> tuple[Path, PublishedModel | None]:
    """Where the checkpoint files lie, in the folder or in one inside it, and the published model of its name."""
    candidates = [folder, *_folders(folder)]
    files = next((c for c in candidates if scale_path(c, 1).is_file()), None)
    model = MODELS.get(folder.resolve().name) or (MODELS.get(files.name) if files else None)
    if files is not None:
        return files, model
    if model is not None:
        raise WeightsError(f"{folder} lacks scale1.ckpt, a file of the published {model.name}: {model.how_to_install}")
    raise WeightsError(
        f"{folder} holds no model, expected config.json with its safetensors, or published files from scale1.ckpt on"
    )


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(inner for inner in folder.iterdir() if inner.is_dir())


def _describe(path: Path, model: PublishedModel | None, t: int, stages: int) -> Description:
    if path.is_file():
        return read_description(path)
    if model is None:
        raise WeightsError(
            f"{path} is missing, expected it beside the checkpoint since its folder has no published model's name"
        )
    if model.stages != stages:
        raise WeightsError(f"{path.with_suffix('.ckpt')} is of {stages} stages, but {model.name} has {model.stages}")
    return model.description(t)
