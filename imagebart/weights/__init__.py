"""Models as files: loaded and saved; in folders of safetensors, on the Hub, or as published in 2021."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from imagebart.errors import WeightsError
from imagebart.models.imagebart import ImageBARTModel, Model
from imagebart.sampling.packed_linear import Precision
from imagebart.weights.folder import CONFIG, load_folder, parse_dtype, save_folder
from imagebart.weights.published.registry import MODELS, did_you_mean, is_hub_name, model_folder

__all__ = ["MODELS", "WeightsError", "is_hub_name", "load", "locate", "push", "save"]


def locate(source: str | PathLike[str], download: bool = False, revision: str | None = None) -> Path:
    """The folder of a model. source: a folder, a published model's name, or owner/name on the Hub.

    download: a published model that is not here is downloaded and converted first, which takes gigabytes and says how
    many. revision: of a model on the Hub. Raises WeightsError for any other source, and as `ensure_model` and
    `fetch_folder` do.
    """
    # Late imports: those that use the network take a quarter of a second.
    if is_hub_name(source) and not Path(source).is_dir():
        from imagebart.weights.hub import fetch_folder

        return fetch_folder(str(source), revision)
    if revision is not None:
        raise WeightsError(f"the revision is {revision!r}, but {source} is no model on the Hub, which alone has some")
    if Path(source).is_dir():
        return Path(source)
    if str(source) in MODELS:
        if download:
            from imagebart.weights.published.download import ensure_model

            return ensure_model(str(source))
        folder = model_folder(str(source))
        if not folder.is_dir():
            raise WeightsError(f"{source} is not on this machine: {MODELS[str(source)].how_to_install}")
        return folder
    raise WeightsError(
        f"{source} is no folder, expected one with a model, a published model's name, or owner/name on the Hub. "
        f"{did_you_mean(str(source))}"
    )


def load(
    source: str | PathLike[str],
    device: str = "cpu",
    dtype: str = "float32",
    download: bool = False,
    revision: str | None = None,
    cls: type[Model] = ImageBARTModel,  # type: ignore[assignment]
) -> Model:
    """Loads a model written by `save`, a folder of published files, or a model by name (see `locate`).

    dtype: of the weights; "auto": the fastest without visible loss, bfloat16 on a GPU, on a CPU float32 with sampling
    from weights rounded to bfloat16 or float16. cls: the class to build. Nothing that the files name is imported or
    run. Raises WeightsError naming the file and what is wrong, and ValueError for an unknown device or dtype.
    """
    try:
        target = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        raise ValueError(f"device is {device!r}, expected one that this machine has, such as cpu") from error
    precision: Precision = "exact"
    if target.type == "cpu" and dtype == "auto":
        precision, dtype = "rounded", "float32"
    weights_dtype = parse_dtype("bfloat16" if dtype == "auto" else dtype)
    folder = locate(source, download, revision)
    try:
        if (folder / CONFIG).is_file():
            model = load_folder(folder, target, weights_dtype, cls)
        else:
            from imagebart.weights.published.convert import load_published  # only for those who have such files

            model = load_published(folder, target, weights_dtype, cls)
    except WeightsError:
        raise
    except Exception as error:  # whatever the files hold
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise WeightsError(f"{folder} holds a model that cannot be used: {reason}") from error
    model.precision = precision
    return model


def save(model: ImageBARTModel, folder: str | PathLike[str], dtype: str = "float32") -> None:
    """Writes config.json and safetensors to a folder, in place of a model there; a README.md is left alone."""
    save_folder(model, Path(folder), parse_dtype(dtype))


def push(
    model: ImageBARTModel, name: str, dtype: str = "float32", revision: str | None = None, private: bool = False
) -> str:
    """Writes a model to the Hub as owner/name, with a card; returns the commit's address. Raises WeightsError."""
    from imagebart.weights.hub import push_folder

    with TemporaryDirectory() as folder:
        save(model, folder, dtype)
        return push_folder(Path(folder), name, revision, private)
