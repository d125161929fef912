"""Published files, scale1.ckpt (the finest stage) to scaleT.ckpt: loaded as a model, or converted to its own folder.

A published tensor has another name than ours, and some of ours are several published ones, one under the other
(`KeyMapping`). Checkpoints are read by PyTorch's own safe reader, which runs nothing that a file names.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from imagebart.core.atomic_io import scratch_folder, write_text
from imagebart.core.errors import InputError, WeightsError, format_value, reason_of
from imagebart.models.denoiser import Stage, StageConfig
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About, ImageBARTModel, Model
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.weights.folder import (
    CARD,
    CPU,
    Shapes,
    check_betas,
    check_shapes,
    check_used_codes,
    config_of,
    load_tensors,
    on_meta_device,
    parse_dtype,
    save_folder,
    shapes_of,
)
from imagebart.weights.registry import (
    CARD_HEADER,
    MODELS,
    PublishedModel,
    PublishedStage,
    default_card,
    read_stage_yaml,
)

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
        sources |= _linear(f"{ours}.attention.qkv", *(f"{theirs}.attn.{part}" for part in ("query", "key", "value")))
        sources |= _linear(f"{ours}.attention.out", f"{theirs}.attn.proj")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{theirs}.ln2")
        sources |= _linear(f"{ours}.feed_forward.up", f"{theirs}.mlp.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{theirs}.mlp.2")
    mask = (1, 1, config.decoder.positions, config.decoder.positions)
    return KeyMapping(sources, buffers={f"blocks.{i}.attn.mask": mask for i in range(config.decoder.depth)})


def _linear(ours: str, *theirs: str) -> Sources:
    return {f"{ours}.{kind}": tuple(f"{part}.{kind}" for part in theirs) for kind in ("weight", "bias")}


# What files name besides tensors: PyTorch Lightning 1.4 has the classes of callbacks as keys, schedulers have numbers.
CALLBACKS = "pytorch_lightning.callbacks."
MAX_SHARD_BYTES = 500_000_000  # of a conversion
NUMPY = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode"}


class _Stub:
    """Stands for an object of a checkpoint that is not needed."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's state_dict, in memory that is mapped from the file; nothing in it is run.

    Raises WeightsError where the file is damaged, or names anything but tensors and what Lightning has beside them.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(path)
        unknown = [name for name in names if not name.startswith(CALLBACKS) and name not in NUMPY]
        if unknown:
            raise WeightsError(f"{path} names {unknown[0]:.100}, expected tensors and plain values; nothing was run")
        with safe_globals([(_Stub, name) for name in names]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except WeightsError:
        raise
    except Exception as error:  # whatever a file holds
        reason = reason_of(error).rpartition("WeightsUnpickler error: ")[2]  # before it PyTorch offers to run the file
        raise WeightsError(f"{path} is no PyTorch checkpoint that can be read: {reason:.300}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{path} holds no state_dict, expected a checkpoint's named tensors")
    return {str(name): tensor for name, tensor in state.items()}


class StageCheckpoint:
    """scaleT.ckpt, sorted into its parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tensors = read_state_dict(path)
        self.raw, self.ema, self.first_stage = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in ("transformer.", "transformer_ema.", "first_stage_model.")
        )
        known = {"alphats", "alphacum", "sos_token", "transformer", "transformer_ema", "first_stage_model"}
        other = {name for name in tensors if name.split(".")[0] not in known}
        if other or "alphats" not in tensors:
            found = f"has the tensor {min(other)}" if other else "lacks the tensor alphats"
            raise WeightsError(f"{path} {found}, expected {', '.join(sorted(known))}")
        alphas = tensors["alphats"]
        if alphas.ndim != 1 or not 2 <= len(alphas) <= 1001:
            raise WeightsError(f"{path} has alphats of shape {list(alphas.shape)}, expected T + 1 numbers")
        self.betas = tuple(1 - alpha for alpha in alphas.double().tolist()[1:])
        self.start_token = int(tensors.get("sos_token", 0))

    def load_first_stage(self, config: FirstStageConfig, device: torch.device, dtype: torch.dtype) -> FirstStage:
        """The VQGAN, which every checkpoint has; its tensors have our names."""
        with on_meta_device(self.path):
            module = FirstStage(config)
        tensors = dict(self.first_stage)
        if config.used_codes is None:  # all are, and the file need not say so
            tensors.setdefault("quantize.used", torch.arange(config.codebook_size))
        check_shapes(self.path, tensors, shapes_of(module), "first_stage_model.")
        load_tensors(module, tensors.items(), self.path, device, dtype)
        check_used_codes(module, self.path)
        return module

    def load_stage(self, config: StageConfig, stages: int, device: torch.device, dtype: torch.dtype) -> Stage:
        """The stage, from its EMA weights where the file has them."""
        with on_meta_device(self.path):
            module = Stage(config, stages)
        mapping = key_mapping(config)
        check_shapes(self.path, self.raw, mapping.published_shapes(shapes_of(module)), "transformer.")
        weights = {name: tensor for name, tensor in self.raw.items() if name not in mapping.buffers}
        ema = {n: t for n, t in self.ema.items() if n not in ("decay", "num_updates")}
        if ema:
            without_dots = {name: name.replace(".", "") for name in weights}  # their names there
            expected = {without_dots[name]: tuple(tensor.shape) for name, tensor in weights.items()}
            check_shapes(self.path, ema, expected, "transformer_ema.")
            weights = {name: ema[without_dots[name]] for name in weights}
        parts = ((name, [weights[part] for part in theirs]) for name, theirs in mapping.sources.items())
        whole = ((name, several[0] if len(several) == 1 else torch.cat(several)) for name, several in parts)
        load_tensors(module, whole, self.path, device, dtype)
        return module


def load_published(folder: Path, device: torch.device, dtype: torch.dtype, cls: type[Model]) -> Model:
    """The model of a folder with published files, described by scaleN.yaml beside them or by the registry.

    Weights that need no change stay in their files, of which the system reads what is used. Raises WeightsError naming
    the file and what is wrong, and ValueError for parts that do not fit each other.
    """
    files, model = _find_checkpoints(folder)
    first = StageCheckpoint(files / "scale1.ckpt")
    check_betas(first.betas)
    paths = [files / f"scale{t}.ckpt" for t in range(1, len(first.betas) + 1)]
    if missing := [path for path in paths if not path.is_file()]:  # said before gigabytes are read
        raise WeightsError(f"{missing[0]} is missing, expected scale1.ckpt to {paths[-1].name} beside each other")
    described = [_published_stage(path, model, t, len(paths)) for t, path in enumerate(paths, 1)]
    first_stage, conditioner = described[0].first_stage, described[0].conditioner
    vqgan = first.load_first_stage(first_stage, device, dtype)
    stages = []
    for t, (path, stage) in enumerate(zip(paths, described, strict=True), 1):
        checkpoint = first if t == 1 else StageCheckpoint(path)
        if stage.first_stage != first_stage or stage.conditioner != conditioner:
            raise WeightsError(f"{path.with_suffix('.yaml')} has another first stage or conditioner than scale1.yaml")
        if checkpoint.betas != first.betas:
            betas = format_value(checkpoint.betas)
            raise WeightsError(f"{path} has the betas {betas}, expected scale1.ckpt's {format_value(first.betas)}")
        config = stage.config.replace(t=t, beta=first.betas[t - 1], start_token=checkpoint.start_token)
        stages.append(checkpoint.load_stage(config, len(paths), device, dtype))
    about = About(name=model.name, knows=model.domain) if model else About(name=folder.resolve().name)
    named = model.with_class_names(conditioner) if model else conditioner
    return cls(vqgan, stages, named, about, Schedule(first.betas))


def _find_checkpoints(folder: Path) -> tuple[Path, PublishedModel | None]:
    """Where the checkpoint files lie, in the folder or in one inside it, and the published model of its name."""
    files = next((path.parent for place in ("", "*/") for path in folder.glob(f"{place}scale1.ckpt")), None)
    model = MODELS.get(folder.resolve().name) or (MODELS.get(files.name) if files else None)
    if files is not None:
        return files, model
    if model is not None:
        raise WeightsError(f"{folder} lacks scale1.ckpt, a file of the published {model.name}: {model.how_to_install}")
    raise WeightsError(f"{folder} holds no model, expected config.json and safetensors, or scale1.ckpt and so on")


def _published_stage(checkpoint: Path, model: PublishedModel | None, t: int, stages: int) -> PublishedStage:
    path = checkpoint.with_suffix(".yaml")
    if path.is_file():
        return read_stage_yaml(path)
    if model is None:
        raise WeightsError(f"{path} is missing, expected in a folder without a published model's name")
    if model.stages != stages:
        raise WeightsError(f"{checkpoint} is of {stages} stages, but {model.name} has {model.stages}")
    return model.stage(t)


def convert(source: Path, out: Path, dtype: str = "float32", replace: bool = False) -> None:
    """Writes a folder of published files as a model's folder, with a card. replace: they are deleted afterwards.

    Raises InputError where `out` holds something else, OSError where it cannot be written, and WeightsError naming a
    file that cannot be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        name = min(path.name for path in out.iterdir()) if out.is_dir() else out.name
        raise InputError(f"{out} holds {name}; choose a new or empty folder.")
    model = load_published(source, CPU, parse_dtype(dtype), ImageBARTModel)
    with scratch_folder(out.absolute().with_name(f".{out.name}.new")) as new:
        save_folder(model, new, dtype, MAX_SHARD_BYTES)
        write_text(new / CARD, CARD_HEADER + default_card(config_of(model)))
        new.rename(out)
    if replace:
        files, _ = _find_checkpoints(source)
        for t in range(1, len(model.stages) + 1):
            (files / f"scale{t}.ckpt").unlink()
