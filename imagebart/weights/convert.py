"""Published files into our own layout, a stage at a time: what is mapped in is written shard by shard.

The new folder is put together beside its place, each stage safe on the disk before the next begins, so that a
conversion that was stopped goes on where it was. It takes its place when it is complete, and never before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imagebart.errors import InputError
from imagebart.weights.card import default_card
from imagebart.weights.errors import WeightsError
from imagebart.weights.folder import CONFIG, ModelConfig, config_bytes, read_config, tensor_files
from imagebart.weights.modules import parse_dtype
from imagebart.weights.published import Scale, describe, load_first_stage, load_stage, scale_path
from imagebart.writing import remove, replace_files, replace_folder, write_text

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
