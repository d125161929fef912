"""A published model by its name: downloaded from the authors' server, unpacked and converted.

Its folder appears when all is there; until then its zip, or the beginning of it, lies beside its place. Bars on
standard error show how far it is.
"""

import shutil
import sys
import zipfile
import zlib
from pathlib import Path

from filelock import FileLock
from huggingface_hub import get_session
from huggingface_hub.file_download import http_get
from tqdm.auto import tqdm

from imagebart.core.atomic_io import format_bytes, scratch_folder, write_error
from imagebart.core.errors import WeightsError, reason_of
from imagebart.weights.convert import convert
from imagebart.weights.registry import PublishedModel, converted_folder, get_model, model_folder, published_folder


def ensure_model(name: str) -> Path:
    """The folder of a published model, ready to load; downloads and converts it if it is not here, saying its size."""
    model, folder = get_model(name), model_folder(name)
    if folder.is_dir() and folder != published_folder(name):
        return folder
    if not folder.is_dir():
        size = f"about {model.download_gb} GB to download, {model.memory_gb} GB in the end"
        print(f"{name} is not here: {size}.", file=sys.stderr)
    convert(download(name), converted_folder(name), replace=True)
    return converted_folder(name)


def download(name: str, url: str | None = None) -> Path:
    """The folder with a published model's files, which are downloaded if they are not there.

    url: of its zip; None: the authors'. Raises InputError for an unknown name, and OSError or WeightsError, in one
    sentence, where the files cannot be had, do not fit on the disk or are not what they should be.
    """
    model, folder = get_model(name), published_folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    package = folder.with_name(f"{name}.zip")
    with FileLock(folder.with_name(f"{name}.lock")):  # another process may be downloading it
        if not folder.is_dir():
            if not package.is_file():
                _fetch(url or model.url, package)
            _unpack(package, model, folder)
            package.unlink()
    return folder


def _fetch(url: str, path: Path) -> None:
    """Downloads a file, of which the beginning may be there from an earlier try."""
    part = path.with_name(f"{path.name}.part")
    try:
        answer = get_session().head(url, follow_redirects=True, headers={"accept-encoding": "identity"})
        answer.raise_for_status()
        size = int(answer.headers["content-length"])
        if part.is_file() and part.stat().st_size > size:
            part.unlink()  # of another version
        done = part.stat().st_size if part.is_file() else 0
        free, needed = shutil.disk_usage(path.parent).free, 2 * size - done  # as much again is unpacked
        if needed > free:
            there = f"{format_bytes(free)} are free at {path.parent}"
            raise WeightsError(f"{path.name} takes {format_bytes(needed)}, and {there}.")
        with part.open("ab") as file:
            http_get(url, file, resume_size=done, expected_size=size, displayed_filename=path.name)
    except WeightsError:
        raise
    except Exception as error:  # of the HTTP library that huggingface_hub uses
        raise WeightsError(f"{url} cannot be downloaded: {reason_of(error)}") from error
    part.replace(path)


def _unpack(package: Path, model: PublishedModel, folder: Path) -> None:
    """Puts a zip's files into a folder; raises WeightsError, and deletes the zip, where it is not what it should be."""
    try:
        with zipfile.ZipFile(package) as archive, scratch_folder(folder.with_name(f".{folder.name}.new")) as new:
            entries = {entry.filename.rpartition("/")[2]: entry for entry in archive.infolist()}
            missing = [name for t in range(1, model.stages + 1) if (name := f"scale{t}.ckpt") not in entries]
            if missing:
                raise zipfile.BadZipFile(f"it lacks {missing[0]}")
            wanted = [name for name in entries if name.startswith("scale") and name.endswith((".ckpt", ".yaml"))]
            for name in tqdm(wanted, desc=f"unpacking {model.name}"):
                with archive.open(entries[name]) as source, (new / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)  # which checks the zip's checksums
            new.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        package.unlink()
        raise WeightsError(f"{package.name} is not the zip of {model.name} ({error}); download it again.") from error
    except OSError as error:
        raise write_error(error, folder, package.stat().st_size) from error
