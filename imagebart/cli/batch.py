"""`imagebart edit` over a folder: many images, some at a time, by one process or by several that share the work.

An image is done when its result is there, so that a run goes on where another stopped. A process claims images by file
locks, which the system releases when the process ends, however it ends.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from imagebart.errors import InputError, plain, reason_of
from imagebart.training.progress import progress

if TYPE_CHECKING:  # --help needs neither torch nor images
    from imagebart.pipeline import Pipeline, PipelineEvent

IMAGES_AT_ONCE = 8
METADATA = ("metadata.jsonl", "metadata.csv")
CLAIMS = ".claims"  # the folder of locks, in that of the results


@dataclass(frozen=True)
class Job:
    """One image of a folder, and where its result belongs."""

    image: Path
    mask: str | Path  # the name of a preset, or a file
    prompt: str | None
    out: Path


def find_jobs(images: Path, out: Path, mask: str, prompt: str | None) -> list[Job]:
    """The images of a folder by name, those in folders of it left out.

    mask: a preset, a file for all, or a folder with NAME.mask.png or an image of the same name for each. prompt: for
    all; if None, that of metadata.jsonl or metadata.csv (`file_name`, `text`), or else of NAME.txt beside the image.
    Raises InputError for no images, two of one name, a folder that is both, and prompts that cannot be read.
    """
    from imagebart.imaging.files import SUFFIXES
    from imagebart.imaging.masks import MASK_SUFFIX, PRESETS

    if out.resolve() == images.resolve():
        raise InputError("--image and --out are the same folder; name another one for the results.")
    found = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    found = [path for path in found if not path.name.endswith(MASK_SUFFIX) and not path.name.startswith(".")]
    if not found:
        raise InputError(f"{images} holds no images; give a folder with PNG, JPEG or WebP files.")
    stems: dict[str, Path] = {}
    for path in found:
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other.name} and {path.name} would have the same result; rename one of them.")
    place, given = Path(mask), read_prompts(images) if prompt is None else {}
    masks = {}
    if mask not in PRESETS and place.is_dir():
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        same = place.resolve() == images.resolve()  # only NAME.mask.png are masks
        masks = {} if same else {path.stem: path for path in files}
        masks |= {path.name.removesuffix(MASK_SUFFIX): path for path in files if path.name.endswith(MASK_SUFFIX)}
    jobs = []
    for path in found:
        expected = place / f"{path.stem}{MASK_SUFFIX}"
        own = mask if mask in PRESETS else masks.get(path.stem, expected) if place.is_dir() else place
        words = prompt if prompt is not None else given.get(path.name)
        beside = path.with_suffix(".txt")
        if words is None and beside.is_file():
            words = beside.read_text(encoding="utf-8", errors="replace").strip()
        jobs.append(Job(path, own, words, out / f"{path.stem}.png"))
    return jobs


def read_prompts(folder: Path) -> dict[str, str]:
    """The prompts of a folder's metadata.jsonl or metadata.csv, by file name; raises InputError naming a bad line."""
    file = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if file is None:
        return {}
    prompts = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            written = csv.DictReader(lines) if file.suffix == ".csv" else map(json.loads, filter(str.strip, lines))
            for row in written:
                prompts[str(row["file_name"])] = str(row["text"] or "")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{file} cannot be read after {len(prompts)} prompts ({reason_of(error)}); it gives a file_name and a text "
            "for each image."
        ) from error
    return prompts


def edit_folder(pipe: Pipeline, jobs: Sequence[Job], seed: int | None, **options: Any) -> None:
    """Edits every image that is not done and that no other process edits; prints the results' paths.

    seed: of each image; None: a new one for each. options: those of `Pipeline.edit_batch`. An image that cannot be
    edited is named on standard error, and the others go on; raises InputError in the end if there are any.
    """
    from imagebart.imaging.metadata import write_png

    pipe.edit_batch([], **options)  # raises for bad options
    claims = jobs[0].out.parent / CLAIMS
    claims.mkdir(parents=True, exist_ok=True)
    failed, held, noted = 0, list[Job](), set[str]()
    with progress("images") as bar:
        task = bar.add_task("", total=len(jobs))
        for claimed in _claim(jobs, claims, held, partial(bar.advance, task)):
            for job, result in _edit(pipe, claimed, seed, options):
                if isinstance(result, InputError):
                    failed, said = failed + 1, [str(result)]
                else:
                    write_png(result.image, job.out, result.recipe)
                    print(job.out, flush=True)
                    said = [note for note in result.notes if note not in noted]
                    noted.update(said)
                for sentence in said:
                    print(plain(f"{job.image.name}: {sentence}"), file=sys.stderr)
                bar.advance(task)
    with suppress(OSError):  # another process is at work
        claims.rmdir()
    if busy := sum(not job.out.exists() for job in held):
        print(f"Another process has {busy} more at work; run this again to see that they are done.", file=sys.stderr)
    if failed:
        raise InputError(f"{failed} of {len(jobs)} images could not be edited.")


def _claim(jobs: Iterable[Job], claims: Path, held: list[Job], skip: Callable[[], None]) -> Iterator[list[Job]]:
    """The jobs that are to be done, some at a time, which no other process does until the next are asked for.

    held: takes those that another process has. skip: is called for each that is done.
    """
    waiting = iter(jobs)
    while True:
        claimed: list[tuple[Job, FileLock]] = []
        try:
            for job in waiting:
                lock = FileLock(claims / f"{job.image.name}.lock")
                try:
                    if not job.out.exists():
                        lock.acquire(timeout=0)
                except Timeout:
                    held.append(job)
                    continue
                if job.out.exists():  # perhaps since a moment ago
                    _discard(lock)
                    skip()
                    continue
                claimed.append((job, lock))
                if len(claimed) == IMAGES_AT_ONCE:
                    break
            if not claimed:
                return
            yield [job for job, _ in claimed]
            for _, lock in claimed:  # not where this process was stopped: then they are not done
                _discard(lock)
        finally:
            for _, lock in claimed:
                lock.release()


def _discard(lock: FileLock) -> None:
    """Removes a lock of what is done, or cannot be done: who gets the old file's lock sees that."""
    with suppress(OSError):  # another process was faster; Windows removes no open file
        Path(lock.lock_file).unlink()
    lock.release()


def _edit(
    pipe: Pipeline, jobs: Sequence[Job], seed: int | None, options: dict[str, Any]
) -> Iterator[tuple[Job, PipelineEvent | InputError]]:
    """Each job with its result, sampled together; or, where any cannot be edited, one by one, with what is wrong."""
    from imagebart.imaging import masks
    from imagebart.imaging.files import load_image
    from imagebart.pipeline import Edit

    edits = []
    try:
        for job in jobs:
            image = load_image(job.image)
            is_file = isinstance(job.mask, Path)
            mask = masks.load_mask(job.mask, image.size) if is_file else masks.preset(str(job.mask), image.size)
            edits.append(Edit(image, mask, job.prompt, seed))
        results = pipe.edit_batch(edits, **options)
    except InputError as error:
        if len(jobs) == 1:
            yield jobs[0], error
        for job in jobs if len(jobs) > 1 else ():
            yield from _edit(pipe, [job], seed, options)
        return
    yield from zip(jobs, results, strict=True)
