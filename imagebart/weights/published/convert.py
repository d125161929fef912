"""How the published checkpoints name the tensors of a stage, and which of them ours are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from imagebart.atomic_io import remove, replace_files, replace_folder, write_text
from imagebart.conditioning import conditioner_from_config
from imagebart.diffusion import Schedule
from imagebart.errors import InputError, WeightsError
from imagebart.mmap_policy import too_large
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.stages import Stage, StageConfig, build_stage
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.weights.folder import (
    CONFIG,
    VERSION,
    ModelConfig,
    Shapes,
    check_codes,
    check_shapes,
    config_bytes,
    fill,
    parse_dtype,
    read_config,
    shapes_of,
    tensor_files,
    without_memory,
)
from imagebart.weights.published.checkpoint import StoredTensor, read_tensors
from imagebart.weights.published.registry import MODELS, Description, PublishedModel, default_card, read_description

Sources = dict[str, tuple[str, ...]]  # our tensor: the published ones that it is made of, one under the other
TensorShapes = dict[str, tuple[int, ...]]  # names and shapes


@dataclass
class Layout:
    """A stage's tensors under their published names."""

    sources: Sources
    unused: TensorShapes = field(default_factory=dict)  # trained, but without effect
    buffers: TensorShapes = field(default_factory=dict)  # constants that we compute

    def published_shapes(self, ours: Shapes) -> TensorShapes:
        """The shape of each published tensor, given those of ours."""
        shapes = self.unused | self.buffers
        for name, parts in self.sources.items():
            rows, *rest = ours[name]
            leading = (1,) if parts == ("pos_emb",) else ()  # minGPT keeps a batch axis there
            shapes.update({part: (*leading, rows // len(parts), *rest) for part in parts})
        return shapes


def stage_layout(config: StageConfig) -> Layout:
    """The published layout of an encoder-decoder, residual or decoder-only stage."""
    if config.kind == "decoder_only":
        return _gpt(config)
    assert config.encoder is not None, "only decoder-only stages have no encoder"
    sources = _x_transformer("encoder", config.encoder.depth, cross=False)
    sources |= _x_transformer("decoder", config.decoder.depth, cross=True)
    sources |= _linear("decoder.head", "decoder.to_logits")
    if config.kind == "residual":
        sources["log_scalors"] = ("log_scalors",)
    # The encoder is a whole language model there; its logits go nowhere.
    encoder = config.encoder
    unused: TensorShapes = {
        "encoder.to_logits.weight": (encoder.vocab_in, encoder.width),
        "encoder.to_logits.bias": (encoder.vocab_in,),
    }
    return Layout(sources, unused)


def _x_transformer(part: str, depth: int, cross: bool) -> Sources:
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
        sources[f"{ours}.attention.qkv.weight"] = _each(f"{first}.1.to_{{}}.weight", "q", "k", "v")
        sources |= _linear(f"{ours}.attention.out", f"{first}.1.to_out")
        for layer in middle:
            sources |= _linear(f"{ours}.cross.norm", f"{layer}.0")
            sources[f"{ours}.cross.q.weight"] = (f"{layer}.1.to_q.weight",)
            sources[f"{ours}.cross.kv.weight"] = _each(f"{layer}.1.to_{{}}.weight", "k", "v")
            sources |= _linear(f"{ours}.cross.out", f"{layer}.1.to_out")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{last}.0")
        sources |= _linear(f"{ours}.feed_forward.up", f"{last}.1.net.0.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{last}.1.net.2")
    return sources


def _gpt(config: StageConfig) -> Layout:
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
            qkv = _each(f"{theirs}.attn.{{}}.{kind}", "query", "key", "value")
            sources[f"{ours}.attention.qkv.{kind}"] = qkv
        sources |= _linear(f"{ours}.attention.out", f"{theirs}.attn.proj")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{theirs}.ln2")
        sources |= _linear(f"{ours}.feed_forward.up", f"{theirs}.mlp.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{theirs}.mlp.2")
    mask = (1, 1, config.decoder.positions, config.decoder.positions)
    buffers: TensorShapes = {f"blocks.{i}.attn.mask": mask for i in range(config.decoder.depth)}
    return Layout(sources, buffers=buffers)


def _linear(ours: str, theirs: str) -> Sources:
    return {f"{ours}.{kind}": (f"{theirs}.{kind}",) for kind in ("weight", "bias")}


def _each(template: str, *parts: str) -> tuple[str, ...]:
    return tuple(template.format(part) for part in parts)


# Loads the checkpoint files as they were published: scale1.ckpt (the finest stage) to scaleT.ckpt.


StoredTensors = dict[str, StoredTensor]


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

    def weights(self, layout: Layout) -> StoredTensors:
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


def _under(tensors: StoredTensors, prefix: str) -> StoredTensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _shapes(tensors: StoredTensors) -> dict[str, tuple[int, ...]]:
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


# Published files into our own layout, a stage at a time: what is mapped in is written shard by shard.
#
# The new folder is put together beside its place, each stage safe on the disk before the next begins, so that a
# conversion that was stopped goes on where it was. It takes its place when it is complete, and never before.


SHARD = 200_000_000  # bytes of tensors in a file; writing one takes about three times that in memory
JOB = "conversion.json"  # beside what is written so far: of which files, and as what numbers
CPU = torch.device("cpu")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Conversion:
    """What is converted, and where to. replace: published files go as soon as their stage is safe."""

    source: Path
    out: Path
    dtype: str = "float32"
    replace: bool = False

    @property
    def place(self) -> Path:
        """Where the new folder is put together."""
        out = self.out.resolve()
        return out.with_name(f".{out.name}.converting")


def convert(job: Conversion, say: Say) -> None:
    """Writes a folder of published files as config.json and safetensors. say: is told what is done, in sentences.

    Memory: a stage's tensors as its file has them, and three shards. Raises InputError where `out` holds something
    else, OSError where it cannot be written, and WeightsError naming a file that cannot be used.
    """
    dtype = parse_dtype(job.dtype)
    if not (job.out / JOB).is_file():  # else all of it is done, but for tidying up
        _check_out(job)
        _convert(job, dtype, say)
        replace_folder(job.place, job.out.resolve(), job.place.with_name(f"{job.place.name}.old"))
    for note in [*job.out.glob("stage*.done"), job.out / JOB]:
        note.unlink()


def _convert(job: Conversion, dtype: torch.dtype, say: Say) -> None:
    """Puts the new folder together."""
    files, config = _begin(job)
    for t in range(1, len(config.stages) + 1):
        if not _done(job, t).is_file():
            replace_files(job.place, _contents(scale_path(files, t), config, t, dtype))
            say(f"stage {t} of {len(config.stages)} is written")
        if job.replace:
            scale_path(files, t).unlink(missing_ok=True)


def _check_out(job: Conversion) -> None:
    """Raises InputError where the new folder would take the place of something."""
    if not job.out.exists():
        return
    names = sorted(path.name for path in job.out.iterdir()) if job.out.is_dir() else [job.out.name]
    if names:
        raise InputError(f"{job.out} holds {names[0]}; choose a new or empty folder.")


def _begin(job: Conversion) -> tuple[Path, ModelConfig]:
    """The published files' folder and what they hold: as a conversion that was stopped knew, else as they say."""
    note = job.place / JOB
    asked = {"source": str(job.source.resolve()), "dtype": job.dtype}
    if note.is_file():
        begun = json.loads(note.read_text(encoding="utf-8"))
        if begun.items() >= asked.items():
            return Path(begun["files"]), read_config(job.place / CONFIG)
    files, config = describe(job.source)
    remove(job.place)
    job.place.mkdir(parents=True)
    replace_files(job.place, [("README.md", default_card(config).encode()), (CONFIG, config_bytes(config))])
    write_text(note, json.dumps({**asked, "files": str(files.resolve())}) + "\n")
    return files, config


def _contents(path: Path, config: ModelConfig, t: int, dtype: torch.dtype) -> Iterator[tuple[str, bytes]]:
    """The new files of stage t, one after the other; with t = 1 come those of the VQGAN, which every checkpoint has."""
    if not path.is_file():
        raise WeightsError(f"{path} is missing, expected it beside the others")
    scale = Scale(path)
    if t == 1:
        state = load_first_stage(scale, config.first_stage, CPU, torch.float32).state_dict()
        yield from _shards(state, "first_stage", dtype)
        del state  # gone before the stage comes
    stage = load_stage(scale, config.stages[t - 1], len(config.stages), CPU, torch.float32, mapped=True)
    yield from _shards(stage.state_dict(), f"stage{t}", dtype)
    yield f"stage{t}.done", b""


def _shards(state: Mapping[str, Tensor], stem: str, dtype: torch.dtype) -> Iterator[tuple[str, bytes]]:
    return tensor_files(state, stem, dtype, SHARD)


def _done(job: Conversion, t: int) -> Path:
    """Is there when stage t is safe."""
    return job.place / f"stage{t}.done"
