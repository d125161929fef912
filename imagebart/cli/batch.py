"""`imagebart edit` over a folder: several images in one chain. What has a result is left alone."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from imagebart.core.errors import InputError, plain, reason_of
from imagebart.imaging import masks
from imagebart.imaging.files import SUFFIXES, load_image, write_png
from imagebart.pipeline import Edit, Pipeline, PipelineEvent

IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class Job:
    """One image of a folder, and where its result belongs."""

    image: Path
    mask: str  # see `open_mask`
    prompt: str | None
    out: Path


def open_mask(mask: str, size: tuple[int, int]) -> Image.Image:
    """A mask for an image of `size` (width, height): a preset by its name, or a file."""
    return masks.preset(mask, size) if mask in masks.PRESETS else masks.load_mask(Path(mask), size)


def find_jobs(images: Path, out: Path, mask: str, prompt: str | None) -> list[Job]:
    """The images of a folder by name, not those of folders in it; raises InputError where there are none, or too many.

    mask: a preset, a file for all, or a folder with NAME.mask.png or an image of the same name for each. prompt: for
    all; if None, that of metadata.jsonl (`file_name`, `text`), or else of NAME.txt beside the image.
    """
    if out.resolve() == images.resolve():
        raise InputError("--image and --out are the same folder; name another one for the results.")
    prompts = read_prompts(images / "metadata.jsonl") if prompt is None else {}
    jobs: dict[str, Job] = {}
    for path in sorted(images.iterdir()):
        is_image = path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        if not is_image or path.name.endswith(masks.MASK_SUFFIX):
            continue
        if path.stem in jobs:
            other = jobs[path.stem].image.name
            raise InputError(f"{other} and {path.name} would have the same result; rename one of them.")
        words, beside = prompts.get(path.name, prompt), path.with_suffix(".txt")
        if words is None and beside.is_file():
            words = beside.read_text(encoding="utf-8", errors="replace").strip()
        jobs[path.stem] = Job(path, _mask_of(path, mask), words, out / f"{path.stem}.png")
    if not jobs:
        raise InputError(f"{images} holds no images; give a folder with PNG, JPEG or WebP files.")
    return list(jobs.values())


def _mask_of(image: Path, mask: str) -> str:
    """The mask of an image: what was given, or in a folder of masks the image's own, which may be missing."""
    if mask in masks.PRESETS or not Path(mask).is_dir():
        return mask
    marked = Path(mask) / f"{image.stem}{masks.MASK_SUFFIX}"
    same_name = [Path(mask) / f"{image.stem}{suffix}" for suffix in SUFFIXES]
    if not marked.is_file() and Path(mask).resolve() != image.parent.resolve():
        return str(next((path for path in same_name if path.is_file()), marked))
    return str(marked)


def read_prompts(file: Path) -> dict[str, str]:
    """The prompts of a metadata.jsonl by file name, {} without one; raises InputError where it cannot be read."""
    prompts: dict[str, str] = {}
    if not file.is_file():
        return prompts
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for row in map(json.loads, filter(str.strip, lines)):
                prompts[str(row["file_name"])] = str(row["text"] or "")
    except (ValueError, KeyError, TypeError) as error:
        said = f"{file} cannot be read after {len(prompts)} prompts ({reason_of(error)})"
        raise InputError(f"{said}; it gives a file_name and a text for each image.") from error
    return prompts


def edit_folder(pipe: Pipeline, jobs: Sequence[Job], seed: int | None, **options: Any) -> None:
    """Edits every image that has no result yet; prints the results' paths. seed: None for a new one for each image.

    An image that cannot be edited is named on standard error, and the others go on; InputError is raised in the end.
    """
    pipe.edit_batch([], **options)  # raises for bad options
    jobs[0].out.parent.mkdir(parents=True, exist_ok=True)
    waiting, failed, noted = [job for job in jobs if not job.out.exists()], 0, set[str]()
    with tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="image", disable=None) as bar:
        for start in range(0, len(waiting), IMAGES_AT_ONCE):
            for job, result in _edit(pipe, waiting[start : start + IMAGES_AT_ONCE], seed, options):
                if isinstance(result, InputError):
                    failed, said = failed + 1, [str(result)]
                else:
                    write_png(result.image, job.out, result.recipe)
                    print(job.out, flush=True)
                    said = [note for note in result.notes if note not in noted]
                    noted.update(said)
                for sentence in said:
                    print(plain(f"{job.image.name}: {sentence}"), file=sys.stderr)
                bar.update()
    if failed:
        raise InputError(f"{failed} of {len(jobs)} images could not be edited.")


def _edit(
    pipe: Pipeline, jobs: Sequence[Job], seed: int | None, options: dict[str, Any]
) -> Iterator[tuple[Job, PipelineEvent | InputError]]:
    """Each job with its result, sampled together; or, where any cannot be edited, one by one, with what is wrong."""
    edits = []
    try:
        for job in jobs:
            image = load_image(job.image)
            edits.append(Edit(image, open_mask(job.mask, image.size), job.prompt, seed))
        results = pipe.edit_batch(edits, **options)
    except InputError as error:
        if len(jobs) == 1:
            yield jobs[0], error
            return
        for job in jobs:
            yield from _edit(pipe, [job], seed, options)
    else:
        yield from zip(jobs, results, strict=True)
