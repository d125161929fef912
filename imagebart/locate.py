"""Models as files: in folders of safetensors, on the Hub, or as published in 2021."""

from __future__ import annotations

from importlib import resources
from os import PathLike
from pathlib import Path

import torch

from imagebart.errors import WeightsError, reason_of
from imagebart.models.imagebart import ImageBARTModel, Model
from imagebart.published.registry import MODELS, did_you_mean, is_hub_name, model_folder
from imagebart.weights.folder import CONFIG, load_folder, parse_dtype, save_folder

__all__ = ["MODELS", "WeightsError", "is_hub_name", "load", "locate", "save_folder", "shipped_model"]

FIRST = "avatars"  # the model that the page opens with


def shipped_model(name: str = FIRST) -> Path | None:
    """The folder of a model that comes with the package: in it, or in a checkout's checkpoints/; None without it."""
    package = Path(str(resources.files("imagebart")))
    folders = [place / "checkpoints" / name for place in (package, package.parent)]
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def locate(source: str | PathLike[str], download: bool = False, revision: str | None = None) -> Path:
    """The folder of a model: source is a folder, a shipped or published model's name, or owner/name on the Hub.

    download: a published model that is not here is downloaded and converted first, which takes gigabytes and says how
    many. revision: of a model on the Hub. Raises WeightsError for any other source, and as `ensure_model` and
    `fetch_folder` do.
    """
    # Late imports: those that use the network take a quarter of a second.
    if is_hub_name(source) and not Path(source).is_dir():
        from imagebart.published.hub import fetch_folder

        return fetch_folder(str(source), revision)
    if revision is not None:
        raise WeightsError(f"the revision is {revision!r}, but {source} is no model on the Hub, which alone has some")
    name = str(source)
    if name == Path(name).name and not (Path(name) / CONFIG).is_file():  # a folder of that name may hold anything
        shipped = shipped_model(name)
        if shipped is not None:
            return shipped
        if name == FIRST:
            raise WeightsError(f"this installation has no weights of {name}; install a wheel, or name a model")
    if Path(source).is_dir():
        return Path(source)
    if str(source) not in MODELS:
        raise WeightsError(
            f"{source} is no folder, expected one with a model, a published model's name, or owner/name on the Hub. "
            f"{did_you_mean(str(source))}"
        )
    if download:
        from imagebart.published.download import ensure_model

        return ensure_model(str(source))
    folder = model_folder(str(source))
    if not folder.is_dir():
        raise WeightsError(f"{source} is not on this machine: {MODELS[str(source)].how_to_install}")
    return folder


def load(
    source: str | PathLike[str],
    device: str = "cpu",
    dtype: str = "float32",
    download: bool = False,
    revision: str | None = None,
    cls: type[Model] = ImageBARTModel,  # type: ignore[assignment]
) -> Model:
    """A model as `cls`; everything else as `ImageBART.from_pretrained` says."""
    try:
        target = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        raise ValueError(f"device is {device!r}, expected one that this machine has, such as cpu") from error
    weights_dtype = parse_dtype(dtype)
    folder = locate(source, download, revision)
    try:
        if (folder / CONFIG).is_file():
            model = load_folder(folder, target, weights_dtype, cls)
        else:
            from imagebart.published.convert import load_published  # only for those who have such files

            model = load_published(folder, target, weights_dtype, cls)
    except WeightsError:
        raise
    except Exception as error:  # whatever the files hold
        raise WeightsError(f"{folder} holds a model that cannot be used: {reason_of(error)}") from error
    return model
