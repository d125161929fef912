"""A model's folder: config.json, first_stage.safetensors, and denoiser.safetensors or stage1 to stageT.safetensors.

A text encoder that all networks share is stored once, in text_encoder.safetensors. A file that would be larger than
Spaces take is split: stage1-1-of-2.safetensors and so on. Beside them may lie README.md, the model card. Training keeps
parts of a model in folders of their own (`save_part`, `load_part`).

A file may hold anything, so what is read of it before it is known what it is has a limit: long lists of tensors take
minutes and gigabytes to read.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from zipfile import BadZipFile, ZipFile

import torch
from huggingface_hub import constants
from pydantic import TypeAdapter, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagebart.atomic_io import recover_files, replace_files
from imagebart.diffusion import Schedule
from imagebart.errors import WeightsError, format_value, reason_of
from imagebart.models.denoiser import Denoiser, DenoiserConfig
from imagebart.models.imagebart import About, ImageBARTModel, Model, too_large
from imagebart.models.stages import Stage, StageConfig, build_stage
from imagebart.models.text_encoder import TextEncoder, TextEncoderConfig
from imagebart.models.transformer import Linear
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.settings import Settings, Share
from imagebart.text.conditioners import Conditioner, NoConditioner

CONFIG = "config.json"
VERSION = 1
CARD = "README.md"
EXAMPLES = "examples"  # a folder of images to start from, see ui/examples.py
TEXT_ENCODER = "text_encoder"
WEIGHTS = re.compile(r"(first_stage|text_encoder|denoiser|stage\d+)(-\d+-of-\d+)?\.safetensors")
MAX_FILE_BYTES = 9_500_000  # of tensors; a Space refuses files over 10 MB
MAX_CONFIG_BYTES = 2_000_000  # published models' configurations have some 30 thousand
MAX_CARD_BYTES = 200_000
MAX_INDEX_BYTES = 2 * 2**20  # names of a file's tensors or entries; published ones have some hundred thousand

RENAMED_TENSORS = {"glance.weight": "color_hint_embedding.weight"}  # of files by earlier versions: old name -> new

Shapes = Mapping[str, tuple[int, ...]]
DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


def parse_dtype(name: str) -> torch.dtype:
    """A floating-point type by its name; raises ValueError for another."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {format_value(name)}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def open_file(path: Path, folder: Path | None = None) -> BufferedReader:
    """Opens a file of a model's folder, by default the one that it lies in, for reading. All are opened here.

    Raises WeightsError where it is a link that leaves the folder, for whoever made the folder could have this machine's
    other files shown; in the Hub's cache, where all files are links, a link that leaves the model's part of the cache.
    """
    root = Path(os.path.realpath(folder or path.parent))
    if root.parent.name == "snapshots" and root.parents[2] == Path(constants.HF_HUB_CACHE).resolve():
        root = root.parents[1]
    found = Path(os.path.realpath(path))
    leaves = WeightsError(f"{path} is a link that leaves the model's folder; put the file itself there")
    if not found.is_relative_to(root):
        raise leaves
    file = path.open("rb")
    if not os.path.samestat(os.fstat(file.fileno()), found.stat()):  # a link came in its place meanwhile
        file.close()
        raise leaves
    return file


class ListTooLong(BadZipFile):
    """A ZIP's list of entries takes more memory than it may."""


class _BoundedFile(FileIO):
    """A file that refuses to read more than `most` bytes at once, as `zipfile` reads the list of all entries."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise ListTooLong(f"its list of entries has {size:,} bytes, expected at most {self._most:,}")
        return super().read(size)


def open_zip(path: Path, most: int) -> ZipFile:
    """A ZIP whose list of entries has at most so many bytes. Raises ListTooLong, BadZipFile where it is damaged."""
    try:
        with _BoundedFile(path, most) as bounded, ZipFile(bounded):
            return ZipFile(path)  # whose entries may be longer than the list
    except (ValueError, NotImplementedError, struct.error) as error:  # `zipfile` raises these for damaged lists, too
        raise BadZipFile(str(error)) from error


class ModelConfig(Settings):
    """config.json."""

    format: Literal["imagebart"]
    version: int
    about: About
    first_stage: FirstStageConfig
    conditioner: Conditioner
    denoiser: DenoiserConfig | None = None  # either this
    betas: tuple[Share, ...] = ()  # or these
    stages: tuple[StageConfig, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if (self.denoiser is None) != bool(self.stages) or len(self.betas) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages, {len(self.betas)} betas and {'no' if self.denoiser is None else 'a'} "
                "denoiser, expected stages with as many betas, or a denoiser alone"
            )
        return self


def config_of(model: ImageBARTModel) -> ModelConfig:
    """What config.json says of a model."""
    return ModelConfig(
        format="imagebart",
        version=VERSION,
        about=model.about,
        first_stage=model.first_stage.config,
        conditioner=model.conditioner,
        denoiser=model.denoiser.config if model.denoiser is not None else None,
        betas=model.schedule.betas if model.stages else (),
        stages=tuple(stage.config for stage in model.stages),
    )


def networks(model: ImageBARTModel) -> dict[str, nn.Module]:
    """The denoiser or the stages of a model, by the names of their files."""
    if model.denoiser is not None:
        return {"denoiser": model.denoiser}
    return {f"stage{stage.config.t}": stage for stage in model.stages}


def save_folder(model: ImageBARTModel, folder: str | PathLike[str], dtype: str = "float32") -> None:
    """Writes config.json and safetensors, in place of a model that was there; a README.md is left alone."""
    files = _files_of(model, parse_dtype(dtype))
    owned = [old.name for old in Path(folder).glob("*.safetensors") if WEIGHTS.fullmatch(old.name)]
    replace_files(Path(folder), files, owned)


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype, cls: type[Model]) -> Model:
    """Reads a model; raises WeightsError naming the file and what is wrong."""
    try:
        recover_files(folder)
    except OSError as error:
        raise WeightsError(f"{folder} was half replaced and cannot be put right: {error.strerror}") from error
    config = read_config(folder / CONFIG)
    with on_meta_device(folder / CONFIG):
        first_stage = FirstStage(config.first_stage)
        stages = [build_stage(stage, len(config.betas)) for stage in config.stages]
        network = stages if config.denoiser is None else Denoiser(config.denoiser)
        schedule = Schedule(config.betas) if config.stages else None
        model = cls(first_stage, network, config.conditioner, config.about, schedule)
    _check_networks(config, folder / CONFIG)
    _load_module(first_stage, folder, "first_stage", device, dtype, mapped=False)
    check_used_codes(first_stage, folder / "first_stage.safetensors")
    mapped = too_large([model], dtype)
    shared: dict[str, Tensor] = {}
    if model.text is not None and any(WEIGHTS.fullmatch(path.name) for path in folder.glob(f"{TEXT_ENCODER}*")):
        _load_module(model.text, folder, TEXT_ENCODER, device, dtype, mapped)
        shared = {f"text.{name}": tensor for name, tensor in model.text.state_dict().items()}
    for stem, module in networks(model).items():
        _load_module(module, folder, stem, device, dtype, mapped, shared)
    return model.requires_grad_(False)


def read_config(path: Path) -> ModelConfig:
    """config.json; raises WeightsError naming what is wrong in it."""
    try:
        with open_file(path) as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {MAX_CONFIG_BYTES:,}")
        values = json.loads(content)
        version = values.get("version") if isinstance(values, dict) else None
        if version != VERSION:
            raise ValueError(
                f"it has format version {format_value(version)}, expected {VERSION}: a model saved by this program"
            )
        return ModelConfig.from_json(content)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except WeightsError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    except ValueError as error:
        raise WeightsError(f"{path} cannot be used: {error}") from error


def config_bytes(config: ModelConfig) -> bytes:
    return (_to_json(config.model_dump()) + "\n").encode("utf-8")


def _to_json(value: Any, indent: str = "") -> str:
    """JSON with an indented line for each setting, and lists of plain values on one."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {_to_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + _to_json(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def _check_networks(config: ModelConfig, path: Path) -> None:
    """Raises WeightsError where networks were made for another conditioner or schedule."""
    for name, network in [("the denoiser", config.denoiser), *((f"stage {s.t}", s) for s in config.stages)]:
        if network is not None and network.cond_length != config.conditioner.length:
            length = f"{network.cond_length}, expected the conditioner's {config.conditioner.length}"
            raise WeightsError(f"{path}: {name} has cond_length {length}")
    for stage, beta in zip(config.stages, config.betas, strict=True):
        if stage.beta != beta:
            raise WeightsError(f"{path}: stage {stage.t} has beta {stage.beta}, expected the schedule's {beta}")
        if stage.start_token >= stage.decoder.vocab_in:
            token = f"{stage.start_token}, expected one of {stage.decoder.vocab_in}"
            raise WeightsError(f"{path}: stage {stage.t} has the start_token {token}")


def _files_of(model: ImageBARTModel, dtype: torch.dtype) -> Iterator[tuple[str, bytes]]:
    """The files of a model, one after the other, its configuration last."""
    yield from tensor_files(model.first_stage.state_dict(), "first_stage", dtype, MAX_FILE_BYTES)
    encoders = [getattr(network, "text", None) for network in networks(model).values()]
    states = [dict(encoder.state_dict()) for encoder in encoders if encoder is not None]
    same = len(states) == len(encoders) and all(
        state.keys() == states[0].keys() and all(torch.equal(state[name], states[0][name]) for name in state)
        for state in states
    )
    shared = states[0] if same else {}
    if shared:
        yield from tensor_files(shared, TEXT_ENCODER, dtype, MAX_FILE_BYTES)
    for stem, network in networks(model).items():
        state = network.state_dict()
        own = {name: state[name] for name in state if not (shared and name.startswith("text."))}
        yield from tensor_files(own, stem, dtype, MAX_FILE_BYTES)
    yield CONFIG, config_bytes(config_of(model))


def tensor_files(
    state: Mapping[str, Tensor], stem: str, dtype: torch.dtype, max_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Tensors as a file, or as several with at most `max_bytes` each, one after the other.

    Floats are stored as dtype. A tensor that is larger has a file of its own.
    """
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in state.items():
        bytes_needed = tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.itemsize)
        if groups[-1] and size + bytes_needed > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += bytes_needed
    for i, names in enumerate(groups, 1):
        suffix = f"-{i}-of-{len(groups)}" if len(groups) > 1 else ""
        tensors = {}
        for name in names:
            kind = dtype if state[name].is_floating_point() else state[name].dtype
            tensors[name] = state[name].detach().to("cpu", kind).contiguous()
        yield f"{stem}{suffix}.safetensors", save(tensors, {"format": "pt"})


def _load_module(
    module: nn.Module,
    folder: Path,
    stem: str,
    device: torch.device,
    dtype: torch.dtype,
    mapped: bool,
    shared: Mapping[str, Tensor] | None = None,
) -> None:
    """Fills a module from its file or files. mapped: tensors stay there. shared: tensors that were read before."""
    shared = shared or {}
    where = folder / f"{stem}.safetensors"
    try:
        with ExitStack() as stack:
            files: dict[str, tuple[Any, str]] = {}  # tensor name -> the open file that has it, and its name there
            for path in _paths_of(folder, stem):
                where = path
                file = stack.enter_context(safe_open(checked_header(path), framework="pt"))
                held = {name: (file, stored) for name, stored in _current_names(file.keys()).items()}
                twice = sorted(files.keys() & held.keys())
                if twice:
                    raise WeightsError(f"{path} has the tensor {twice[0]}, which is in another part of {stem} too")
                files |= held
            where = folder / f"{stem}.safetensors"
            shapes = {name: tuple(file.get_slice(stored).get_shape()) for name, (file, stored) in files.items()}
            shapes |= {name: tuple(tensor.shape) for name, tensor in shared.items()}
            check_shapes(where, shapes, shapes_of(module))

            def read(name: str) -> Tensor:
                if name in shared:
                    return shared[name]
                file, stored = files[name]
                tensor: Tensor = file.get_tensor(stored)
                return tensor if mapped else tensor.clone()  # out of the file, which may change later

            load_tensors(module, read, where, device, dtype, mapped)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{where} is damaged or cannot be read: {error}") from error


def checked_header(path: Path) -> Path:
    """The path of a safetensors file, if it may be read (see `open_file`). Raises WeightsError for a long header."""
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if length > MAX_INDEX_BYTES:
        raise WeightsError(f"{path} is damaged or no safetensors: its header has {length:,} bytes, expected fewer")
    return path


def _current_names(stored: Collection[str]) -> dict[str, str]:
    """What a file's tensors are called now -> their names there. A former name beside the new one stays, unknown."""
    names = {name: RENAMED_TENSORS.get(name, name) for name in stored}
    return {name if new in names else new: name for name, new in names.items()}


def _paths_of(folder: Path, stem: str) -> list[Path]:
    """The file, or the files 1-of-n to n-of-n, that hold a module."""
    whole = folder / f"{stem}.safetensors"
    counts = {
        int(path.stem.rpartition("-")[2])
        for path in folder.glob(f"{stem}-*-of-*.safetensors")
        if WEIGHTS.fullmatch(path.name)
    }
    if len(counts) + whole.is_file() > 1:
        raise WeightsError(f"{folder} holds {stem} in more than one way, expected {whole.name} or its parts")
    paths = [folder / f"{stem}-{i}-of-{n}.safetensors" for n in counts for i in range(1, n + 1)] or [whole]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, expected it beside {CONFIG}")
    return paths


# Modules are made on the meta device, where they have shapes only, and then take tensors one at a time.


@contextmanager
def on_meta_device(where: object) -> Iterator[None]:
    """Modules made here have shapes and no memory; raises WeightsError, naming `where`, if they cannot be made."""
    try:
        with torch.device("meta"), _WithoutInit():
            yield
    except (ValueError, TypeError, LookupError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{where} describes what cannot be built: {error}") from error


class _WithoutInit(TorchFunctionMode):
    """Skips the initial values of weights: on the meta device PyTorch would import its compiler for them.

    That is 80 MB, and a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            return torch.empty(*args, dtype=torch.long)
        return func(*args, **(kwargs or {}))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a module needs."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(where: object, given: Shapes, expected: Shapes, prefix: str = "") -> None:
    """Raises WeightsError naming the first tensor that is missing, unknown or of a wrong shape.

    prefix: what stands before all these names in the file.
    """
    for name, shape in expected.items():
        if name not in given:
            raise WeightsError(f"{where} lacks the tensor {prefix}{name}, expected it with shape {list(shape)}")
        if tuple(given[name]) != shape:
            raise WeightsError(f"{where} has {prefix}{name} of shape {list(given[name])}, expected {list(shape)}")
    unknown = sorted(set(given) - set(expected))
    if unknown:
        raise WeightsError(
            f"{where} has the tensor {prefix}{unknown[0]:.200}, expected only the {len(expected)} of this model"
        )


def load_tensors(
    module: nn.Module,
    read: Callable[[str], Tensor],
    where: object,
    device: torch.device,
    dtype: torch.dtype,
    mapped: bool = False,
) -> None:
    """Gives a module its tensors, each read by name and moved to the device; floats become dtype.

    What is read may become the module's: it must be memory of its own, or mapped from a file for that purpose. Mapped
    weights of linear layers that are stored in a shorter type than dtype keep it, for longer ones would be copies.
    """
    linear = {f"{name}.weight" for name, part in module.named_modules() if mapped and isinstance(part, Linear)}
    tensors = {}
    for name, wanted in module.state_dict().items():
        tensor = read(name)
        if tensor.is_floating_point() != wanted.is_floating_point():
            expected = "floating point" if wanted.is_floating_point() else "whole"
            raise WeightsError(f"{where} has {name} of type {tensor.dtype}, expected {expected} numbers")
        kind = dtype if wanted.is_floating_point() else wanted.dtype
        if name in linear and tensor.dtype.itemsize < dtype.itemsize:
            kind = tensor.dtype
        tensors[name] = tensor.reshape(wanted.shape).to(device, kind).contiguous()
    module.load_state_dict(tensors, assign=True)


def check_used_codes(first_stage: FirstStage, where: object) -> None:
    """Raises WeightsError where the list of used codes points outside the codebook or is not ascending."""
    used, size = first_stage.quantize.used, first_stage.config.codebook_size
    if used[0] < 0 or used[-1] >= size or bool((used[1:] <= used[:-1]).any()):
        raise WeightsError(f"{where} has used codes that are not ascending numbers from 0 to {size - 1}")


# Model cards: README.md, as somebody wrote it.


def read_card(folder: Path) -> str:
    """The first MAX_CARD_BYTES of a folder's README.md, whatever they are; "" where there is none."""
    path = folder / CARD
    if not path.is_file():
        return ""
    with open_file(path) as file:
        return file.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")


def without_header(card: str) -> str:
    """A card's text after its YAML header."""
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        return card[4:].split("\n---\n", 1)[1].lstrip()
    return card


def card_license(card: str) -> str:
    """The license that a card's YAML header names; "" where it names none."""
    header = card[4:].partition("\n---\n")[0] if card.startswith("---\n") else ""
    named = dict(line.partition(": ")[::2] for line in header.splitlines() if line.startswith("license"))
    return named.get("license_name") or named.get("license", "")


# Trained parts of a model, each in the folder of the run that trained it: part.json and part.safetensors.


PART = "part.json"
PARTS: dict[type[nn.Module], tuple[str, type[Any]]] = {  # the key of its configuration, and what that is read as
    FirstStage: ("first_stage", FirstStageConfig),
    Stage: ("stage", StageConfig),
    Denoiser: ("denoiser", DenoiserConfig),
    TextEncoder: ("text", TextEncoderConfig),
}

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Part(Generic[M]):
    """A first stage, stage, denoiser or text encoder, and the conditioner and schedule that it was trained for."""

    module: M
    conditioner: Conditioner = field(default_factory=NoConditioner)
    schedule: Schedule | None = None


def has_part(folder: Path) -> bool:
    """Whether the folder holds a trained part of a model."""
    return (folder / PART).is_file()


def save_part(part: Part[Any], folder: Path) -> None:
    """Writes a trained part; part.json appears or changes together with its tensors."""
    key = next(key for kind, (key, _) in PARTS.items() if isinstance(part.module, kind))
    values: dict[str, Any] = {key: part.module.config.model_dump(), "conditioner": part.conditioner.model_dump()}
    if part.schedule is not None:
        values["betas"] = part.schedule.betas
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in part.module.state_dict().items()}
    replace_files(folder, [("part.safetensors", save(tensors)), (PART, json.dumps(values, indent=1).encode())])


def load_part(folder: Path, kind: type[M]) -> Part[M]:
    """Reads a trained part, frozen. Raises ValueError where the folder holds none of this kind."""
    recover_files(folder)
    if not has_part(folder):
        raise ValueError(f"{folder} holds no finished part ({PART}); train it first")
    path, (key, config_class) = folder / PART, PARTS[kind]
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = config_class.from_json(json.dumps(values[key]))
        conditioner = TypeAdapter(Conditioner).validate_json(json.dumps(values["conditioner"]))
        schedule = Schedule(tuple(values["betas"])) if "betas" in values else None
        module = build_stage(config, schedule.stages) if schedule is not None else kind(config)
        path = folder / "part.safetensors"
        tensors = load_file(checked_header(path))
        module.load_state_dict({name: tensors[stored] for name, stored in _current_names(tensors).items()})
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged or of another kind: {reason_of(error)}") from error
    return Part(module.eval().requires_grad_(False), conditioner, schedule)  # type: ignore[arg-type]
