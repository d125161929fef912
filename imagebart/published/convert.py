"""Published files, scale1.ckpt (the finest stage) to scaleT.ckpt: loaded as a model, or converted to its own folder.

A published tensor has another name than ours, and some of ours are several published ones, one under the other
(`KeyMapping`). A conversion takes a stage at a time: what is mapped into memory is written file by file. The new
folder is put together beside its place, and each stage is safe on the disk before the next begins, so that a
conversion that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from imagebart.atomic_io import remove, replace_files, replace_folder, write_text
from imagebart.diffusion import Schedule
from imagebart.errors import InputError, WeightsError, format_value
from imagebart.models.imagebart import About, Model, too_large
from imagebart.models.stages import Stage, StageConfig, build_stage
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.published.checkpoint import StoredTensor, read_tensors
from imagebart.published.registry import MODELS, PublishedModel, PublishedStage, default_card, read_stage_yaml
from imagebart.weights.folder import (
    CARD,
    CONFIG,
    VERSION,
    ModelConfig,
    Shapes,
    check_shapes,
    check_used_codes,
    config_bytes,
    load_tensors,
    on_meta_device,
    parse_dtype,
    read_config,
    shapes_of,
    tensor_files,
)

# The names of tensors.


Sources = dict[str, tuple[str, ...]]  # our tensor: the published ones that it is made of, one under the other


@dataclass
class KeyMapping:
    """The published names of a stage's tensors."""

    sources: Sources
    unused: dict[str, tuple[int, ...]] = field(default_factory=dict)  # trained, but without effect
    buffers: dict[str, tuple[int, ...]] = field(default_factory=dict)  # constants that we compute

    def published_shapes(self, ours: Shapes) -> dict[str, tuple[int, ...]]:
        """The shape of each published tensor, given those of ours."""
        shapes = self.unused | self.buffers
        for name, parts in self.sources.items():
            rows, *rest = ours[name]
            leading = (1,) if parts == ("pos_emb",) else ()  # minGPT keeps a batch axis there
            shapes.update({part: (*leading, rows // len(parts), *rest) for part in parts})
        return shapes


def key_mapping(config: StageConfig) -> KeyMapping:
    """The published names of an encoder-decoder, residual or decoder-only stage."""
    if config.kind == "decoder_only":
        return _gpt_mapping(config)
    encoder = config.encoder
    assert encoder is not None, "only decoder-only stages have no encoder"
    sources = _x_transformer_sources("encoder", encoder.depth, cross=False)
    sources |= _x_transformer_sources("decoder", config.decoder.depth, cross=True)
    sources |= _linear("decoder.head", "decoder.to_logits")
    if config.kind == "residual":
        sources["log_scalors"] = ("log_scalors",)
    # The encoder is a whole language model there; its logits go nowhere.
    unused: dict[str, tuple[int, ...]] = {
        "encoder.to_logits.weight": (encoder.vocab_in, encoder.width),
        "encoder.to_logits.bias": (encoder.vocab_in,),
    }
    return KeyMapping(sources, unused)


def _x_transformer_sources(part: str, depth: int, cross: bool) -> Sources:
    """A flat list of layers, each (norm, function): self-attention, cross-attention if any, feed-forward."""
    sources: Sources = {
        f"{part}.token_embedding.weight": (f"{part}.token_emb.weight",),
        f"{part}.position_embedding": (f"{part}.pos_emb.emb.weight",),
        **_linear(f"{part}.norm", f"{part}.norm"),
    }
    for i in range(depth):
        ours = f"{part}.blocks.{i}"
        first, *middle, last = (f"{part}.attn_layers.layers.{n}" for n in range(i * (2 + cross), (i + 1) * (2 + cross)))
        sources |= _linear(f"{ours}.attention.norm", f"{first}.0")
        sources[f"{ours}.attention.qkv.weight"] = tuple(f"{first}.1.to_{part}.weight" for part in "qkv")
        sources |= _linear(f"{ours}.attention.out", f"{first}.1.to_out")
        for layer in middle:
            sources |= _linear(f"{ours}.cross.norm", f"{layer}.0")
            sources[f"{ours}.cross.q.weight"] = (f"{layer}.1.to_q.weight",)
            sources[f"{ours}.cross.kv.weight"] = (f"{layer}.1.to_k.weight", f"{layer}.1.to_v.weight")
            sources |= _linear(f"{ours}.cross.out", f"{layer}.1.to_out")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{last}.0")
        sources |= _linear(f"{ours}.feed_forward.up", f"{last}.1.net.0.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{last}.1.net.2")
    return sources


def _gpt_mapping(config: StageConfig) -> KeyMapping:
    """minGPT, which keeps the causal mask of each block as a tensor."""
    sources: Sources = {
        "decoder.token_embedding.weight": ("tok_emb.weight",),
        "decoder.position_embedding": ("pos_emb",),
        "decoder.head.weight": ("head.weight",),
        **_linear("decoder.norm", "ln_f"),
    }
    for i in range(config.decoder.depth):
        ours, theirs = f"decoder.blocks.{i}", f"blocks.{i}"
        sources |= _linear(f"{ours}.attention.norm", f"{theirs}.ln1")
        for kind in ("weight", "bias"):
            qkv = tuple(f"{theirs}.attn.{part}.{kind}" for part in ("query", "key", "value"))
            sources[f"{ours}.attention.qkv.{kind}"] = qkv
        sources |= _linear(f"{ours}.attention.out", f"{theirs}.attn.proj")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{theirs}.ln2")
        sources |= _linear(f"{ours}.feed_forward.up", f"{theirs}.mlp.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{theirs}.mlp.2")
    mask = (1, 1, config.decoder.positions, config.decoder.positions)
    return KeyMapping(sources, buffers={f"blocks.{i}.attn.mask": mask for i in range(config.decoder.depth)})


def _linear(ours: str, theirs: str) -> Sources:
    return {f"{ours}.{kind}": (f"{theirs}.{kind}",) for kind in ("weight", "bias")}


# One checkpoint file.


class StageCheckpoint:
    """scaleT.ckpt, sorted into its parts. Tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tensors = read_tensors(path)
        self.raw, self.ema, self.first_stage = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in ("transformer.", "transformer_ema.", "first_stage_model.")
        )
        known = {"alphats", "alphacum", "sos_token", "transformer", "transformer_ema", "first_stage_model"}
        other = {name for name in tensors if name.split(".")[0] not in known}
        if other or "alphats" not in tensors:
            raise WeightsError(
                f"{path} {'has the tensor ' + min(other) if other else 'lacks the tensor alphats'}, expected the "
                "published layout: transformer.*, transformer_ema.*, first_stage_model.*, alphats"
            )
        alphas = tensors["alphats"]
        if len(alphas.shape) != 1 or not 2 <= alphas.shape[0] <= 1001:
            raise WeightsError(f"{path} has alphats of shape {list(alphas.shape)}, expected T + 1 numbers")
        self.betas = tuple(1 - alpha for alpha in alphas.read().double().tolist()[1:])
        start = tensors["sos_token"].read().flatten().tolist() if "sos_token" in tensors else [0]
        if len(start) != 1 or not isinstance(start[0], int) or start[0] < 0:
            raise WeightsError(f"{path} has the sos_token {format_value(start)}, expected one token")
        self.start_token: int = start[0]

    def load_first_stage(self, config: FirstStageConfig, device: torch.device, dtype: torch.dtype) -> FirstStage:
        """The VQGAN, which every checkpoint has; its tensors have our names."""
        with on_meta_device(self.path):
            module = FirstStage(config)
        expected = shapes_of(module)
        if config.used_codes is None and "quantize.used" not in self.first_stage:
            del expected["quantize.used"]
        check_shapes(self.path, _shapes(self.first_stage), expected, "first_stage_model.")

        def read(name: str) -> Tensor:
            return self.first_stage[name].read() if name in self.first_stage else torch.arange(config.codebook_size)

        load_tensors(module, read, self.path, device, dtype)
        check_used_codes(module, self.path)
        return module

    def load_stage(
        self, config: StageConfig, stages: int, device: torch.device, dtype: torch.dtype, mapped: bool
    ) -> Stage:
        """The stage, from its EMA weights where the file has them. mapped: they stay in the file where they can."""
        with on_meta_device(self.path):
            module = build_stage(config, stages)
        mapping = key_mapping(config)
        check_shapes(self.path, _shapes(self.raw), mapping.published_shapes(shapes_of(module)), "transformer.")
        weights = {name: tensor for name, tensor in self.raw.items() if name not in mapping.buffers}
        ema = {n: t for n, t in self.ema.items() if n not in ("decay", "num_updates")}
        if ema:
            without_dots = {name: name.replace(".", "") for name in weights}  # their names there
            expected = {without_dots[name]: tensor.shape for name, tensor in weights.items()}
            check_shapes(self.path, _shapes(ema), expected, "transformer_ema.")
            weights = {name: ema[without_dots[name]] for name in weights}

        def read(name: str) -> Tensor:
            parts = [weights[part].read(mapped) for part in mapping.sources[name]]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        load_tensors(module, read, self.path, device, dtype)
        return module


def _shapes(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


# A folder of checkpoint files.


def load_published(folder: Path, device: torch.device, dtype: torch.dtype, cls: type[Model]) -> Model:
    """The model of a folder with published files, described by scaleN.yaml beside them or by the registry.

    Raises WeightsError naming the file and what is wrong.
    """
    checkpoints, config = read_published_folder(folder)
    total = len(checkpoints)
    with on_meta_device(folder):
        mapped = too_large([build_stage(stage, total) for stage in config.stages], dtype)
    first_stage = checkpoints[0].load_first_stage(config.first_stage, device, dtype)
    stages = [
        checkpoint.load_stage(stage, total, device, dtype, mapped)
        for checkpoint, stage in zip(checkpoints, config.stages, strict=True)
    ]
    conditioner = config.conditioner
    return cls(first_stage, stages, conditioner, config.about, Schedule(config.betas))


def read_published_folder(folder: Path) -> tuple[list[StageCheckpoint], ModelConfig]:
    """A folder's published files, and what they hold; their weights are not read.

    Raises WeightsError naming the file and what is wrong.
    """
    files, model = _find_checkpoints(folder)
    first = StageCheckpoint(checkpoint_path(files, 1))
    try:
        Schedule(first.betas)
    except ValueError as error:
        raise WeightsError(f"{first.path}: {error}") from error
    paths = [checkpoint_path(files, t) for t in range(1, len(first.betas) + 1)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, expected scale1.ckpt to {paths[-1].name} beside each other")
    checkpoints = [first, *map(StageCheckpoint, paths[1:])]
    described = [_published_stage(path, model, t, len(paths)) for t, path in enumerate(paths, 1)]
    first_stage, conditioner = described[0].first_stage, described[0].conditioner
    stages = []
    for t, (checkpoint, stage) in enumerate(zip(checkpoints, described, strict=True), 1):
        path, token, vocab = checkpoint.path, checkpoint.start_token, stage.decoder.vocab_in
        if stage.first_stage != first_stage or stage.conditioner != conditioner:
            raise WeightsError(f"{path.with_suffix('.yaml')} has another first stage or conditioner than scale1.yaml")
        if checkpoint.betas != first.betas:
            betas = format_value(checkpoint.betas)
            raise WeightsError(f"{path} has the betas {betas}, expected scale1.ckpt's {format_value(first.betas)}")
        if token >= vocab:
            raise WeightsError(f"{path} has the sos_token {token}, expected one of {vocab}")
        stages.append(stage.stage_config(t, first.betas[t - 1], token))
    about = About(name=model.name, knows=model.domain) if model else About(name=folder.resolve().name)
    named = model.with_class_names(conditioner) if model else conditioner
    config = ModelConfig(
        format="imagebart",
        version=VERSION,
        about=about,
        first_stage=first_stage,
        conditioner=named,
        betas=first.betas,
        stages=tuple(stages),
    )
    return checkpoints, config


def checkpoint_path(files: Path, t: int) -> Path:
    return files / f"scale{t}.ckpt"


def _find_checkpoints(folder: Path) -> tuple[Path, PublishedModel | None]:
    """Where the checkpoint files lie, in the folder or in one inside it, and the published model of its name."""
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    inside = [one for one in inner if one.is_dir() and not one.is_symlink()]
    files = next((files for files in [folder, *inside] if checkpoint_path(files, 1).is_file()), None)
    model = MODELS.get(folder.resolve().name) or (MODELS.get(files.name) if files else None)
    if files is not None:
        return files, model
    if model is not None:
        raise WeightsError(f"{folder} lacks scale1.ckpt, a file of the published {model.name}: {model.how_to_install}")
    raise WeightsError(
        f"{folder} holds no model, expected config.json with its safetensors, or published files from scale1.ckpt on"
    )


def _published_stage(checkpoint: Path, model: PublishedModel | None, t: int, stages: int) -> PublishedStage:
    path = checkpoint.with_suffix(".yaml")
    if path.is_file():
        return read_stage_yaml(path)
    if model is None:
        raise WeightsError(
            f"{path} is missing, expected it beside the checkpoint since its folder has no published model's name"
        )
    if model.stages != stages:
        raise WeightsError(f"{checkpoint} is of {stages} stages, but {model.name} has {model.stages}")
    return model.stage(t)


# Conversion.


SHARD_BYTES = 200_000_000  # of tensors in a file; writing one takes about three times that in memory
STATE = "conversion.json"  # beside what is written so far: from which files, and in which dtype
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Conversion:
    """What is converted, and where to."""

    source: Path
    out: Path
    dtype: str = "float32"
    replace: bool = False  # published files are deleted as soon as their stage is safe

    @property
    def work_folder(self) -> Path:
        """Where the new folder is put together."""
        return self.out.resolve().with_name(f".{self.out.resolve().name}.converting")


def convert(job: Conversion, report: Callable[[str], None]) -> None:
    """Writes a folder of published files as config.json and safetensors. report: gets a sentence for each stage.

    Memory: a stage's tensors as its file has them, and three shards. Raises InputError where `out` holds something
    else, OSError where it cannot be written, and WeightsError naming a file that cannot be used.
    """
    dtype = parse_dtype(job.dtype)
    if not (job.out / STATE).is_file():  # else all of it is done, but for tidying up
        if job.out.exists():
            names = sorted(path.name for path in job.out.iterdir()) if job.out.is_dir() else [job.out.name]
            if names:
                raise InputError(f"{job.out} holds {names[0]}; choose a new or empty folder.")
        files, config = _begin_or_resume(job)
        for t in range(1, len(config.stages) + 1):
            if not (job.work_folder / f"stage{t}.done").is_file():
                replace_files(job.work_folder, _converted_files(checkpoint_path(files, t), config, t, dtype))
                report(f"stage {t} of {len(config.stages)} is written")
            if job.replace:
                checkpoint_path(files, t).unlink(missing_ok=True)
        replace_folder(job.work_folder, job.out.resolve(), job.work_folder.with_name(f"{job.work_folder.name}.old"))
    for path in [*job.out.glob("stage*.done"), job.out / STATE]:
        path.unlink()


def _begin_or_resume(job: Conversion) -> tuple[Path, ModelConfig]:
    """The published files' folder and what they hold: as a conversion that was stopped knew, else as they say."""
    state = job.work_folder / STATE
    asked = {"source": str(job.source.resolve()), "dtype": job.dtype}
    if state.is_file():
        begun = json.loads(state.read_text(encoding="utf-8"))
        if begun.items() >= asked.items():
            return Path(begun["files"]), read_config(job.work_folder / CONFIG)
    checkpoints, config = read_published_folder(job.source)
    files = checkpoints[0].path.parent
    remove(job.work_folder)
    job.work_folder.mkdir(parents=True)
    replace_files(job.work_folder, [(CARD, default_card(config).encode()), (CONFIG, config_bytes(config))])
    write_text(state, json.dumps({**asked, "files": str(files.resolve())}) + "\n")
    return files, config


def _converted_files(path: Path, config: ModelConfig, t: int, dtype: torch.dtype) -> Iterator[tuple[str, bytes]]:
    """The new files of stage t, one after the other; with t = 1 come those of the VQGAN."""
    if not path.is_file():
        raise WeightsError(f"{path} is missing, expected it beside the others")
    checkpoint = StageCheckpoint(path)
    if t == 1:
        state = checkpoint.load_first_stage(config.first_stage, CPU, torch.float32).state_dict()
        yield from tensor_files(state, "first_stage", dtype, SHARD_BYTES)
        del state  # freed before the stage is read
    stage = checkpoint.load_stage(config.stages[t - 1], len(config.stages), CPU, torch.float32, mapped=True)
    yield from tensor_files(stage.state_dict(), f"stage{t}", dtype, SHARD_BYTES)
    yield f"stage{t}.done", b""
