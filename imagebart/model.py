"""ImageBART as people call it: load, sample, save, push. It stands above the networks, the sampling and the files."""

import re
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor

from imagebart.core.atomic_io import write_text
from imagebart.core.errors import WeightsError, reason_of
from imagebart.core.settings import DEFAULT_MODEL, SamplingSettings
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.sampler import ChainEvent, Sampler
from imagebart.sampling.steps import KnownTokens
from imagebart.weights.folder import CARD, CONFIG, config_of, load_networks, parse_dtype, save_folder
from imagebart.weights.registry import CARD_HEADER, default_card, get_model, model_folder

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
HUB_FILES = [CONFIG, "*.safetensors", "*.index.json", CARD, "credits.csv", "LICENSE*", "examples/*"]


class ImageBART(ImageBARTModel):
    """A model with what loads it, samples from it and saves it."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: str = "cpu",
        dtype: str = "float32",
        download: bool = False,
        revision: str | None = None,
    ) -> "ImageBART":
        """Loads a folder written by `save_pretrained` or one of published files, a published model, or owner/name.

        The last is a model on the Hub, and revision its branch, tag or commit. download: a published model that is not
        here is fetched and converted, after saying how large it is. dtype: of the weights, float16, bfloat16, float32
        or float64. Nothing that the files name is imported or run. Raises WeightsError naming the file and what is
        wrong, and ValueError for an unknown device or dtype.
        """
        try:
            target = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
            raise ValueError(f"device is {device!r}, expected one that this machine has, such as cpu") from error
        weights_dtype, folder = parse_dtype(dtype), locate(source, download, revision)
        try:
            if (folder / CONFIG).is_file():
                model = load_networks(folder, target, weights_dtype, cls)
            else:
                from imagebart.weights.convert import load_published  # only for those who have such files

                model = load_published(folder, target, weights_dtype, cls)
        except WeightsError:
            raise
        except Exception as error:  # whatever the files hold
            raise WeightsError(f"{folder} holds a model that cannot be used: {reason_of(error)}") from error
        if lacking := model.lacks():
            raise WeightsError(f"{folder} is no whole model yet: it needs {lacking}")
        return model

    def save_pretrained(self, folder: str | PathLike[str], dtype: str = "float32") -> None:
        """Writes config.json and safetensors to a folder; `dtype` is what is stored. Other files are left alone."""
        save_folder(self, folder, dtype)

    def push_to_hub(self, name: str, dtype: str = "float32", revision: str | None = None, private: bool = False) -> str:
        """Writes the model to the Hub as owner/name, in place of what is there, with a card where there is none.

        revision: the branch; None: main. Returns the commit's address. Raises WeightsError where it cannot be sent.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            api.create_repo(name, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(name, branch=revision, exist_ok=True)
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder, dtype)
                if not api.file_exists(name, CARD, revision=revision):
                    write_text(Path(folder) / CARD, CARD_HEADER + default_card(config_of(self)))
                sent = api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    revision=revision,
                    delete_patterns=["*.safetensors", "*.index.json"],  # of a model that was there, in other shards
                    commit_message=f"{self.about.name or 'A model'} of ImageBART",
                )
        except Exception as error:  # of the HTTP library that huggingface_hub uses
            raise WeightsError(f"{name} cannot be sent to {constants.ENDPOINT}: {reason_of(error)}") from error
        return str(sent.commit_url)

    @cached_property
    def sampler(self) -> Sampler:
        """What samples from this model."""
        return Sampler(self)

    def sample(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        *,
        seed: int | None = None,
        strength: float = 1.0,
        **settings: Any,
    ) -> Tensor:
        """Runs the chain; returns x_0, int64 [B, N]. Arguments as for `stream`.

        settings: as `SamplingSettings` has them: temperature=0.9, top_k=100.
        """
        x = known
        chosen = SamplingSettings.parse(**settings)
        for event in self.stream(batch_size, cond, start, known, keep, chosen, seed, strength):
            x = event.tokens
        assert x is not None, "there is no event only where all tokens are known"
        return x

    def stream(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        settings: SamplingSettings | None = None,
        seed: int | None = None,
        strength: float = 1.0,
    ) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of the decoder; the iterator can be closed at any moment.

        cond: conditioning tokens int64 [B, L]. start: x at the first step to run, int64 [B, N]; None: noise or, if that
        step expects less, `known` with as much noise. known, keep: tokens int64 [B, N] and bool [B, N] or [N], True =
        keep the known token; `Sampler.prepare` takes more of them (`KnownTokens`). strength: the noise level to start
        from, over 0, at most 1. seed: row b samples from seed + b. Raises ValueError, before the first event, for what
        does not fit.
        """
        if known is None and keep is not None:
            raise ValueError("keep was given without known, the tokens to keep")
        settings, kept = settings or SamplingSettings(), None if known is None else KnownTokens(known, keep)
        state = self.sampler.prepare(batch_size, settings, cond, start=start, known=kept, strength=strength, seed=seed)
        return self.sampler.stream(state, settings)


def shipped_model(name: str) -> Path | None:
    """The folder of a model that comes with the package: in it, or in a checkout's checkpoints/; None without it."""
    package = Path(str(resources.files("imagebart")))
    folders = [place / "checkpoints" / name for place in (package, package.parent)]
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def is_hub_name(source: str | PathLike[str]) -> bool:
    """Whether this can only be a name on the Hub: owner/name, where there is no folder called owner."""
    return bool(HUB_NAME.fullmatch(str(source))) and not Path(source).parent.is_dir()


def locate(source: str | PathLike[str], download: bool = False, revision: str | None = None) -> Path:
    """The folder of a model: source is a folder, a shipped or published model's name, or owner/name on the Hub.

    download: a published model that is not here is downloaded and converted first, which takes gigabytes and says how
    many. revision: of a model on the Hub. Raises WeightsError for any other source, and as `ensure_model` and
    `fetch_folder` do.
    """
    name = str(source)
    if is_hub_name(source):
        return fetch_folder(name, revision)
    if revision is not None:
        raise WeightsError(f"the revision is {revision!r}, but {source} is no model on the Hub, which alone has some")
    if name == Path(name).name and not (Path(name) / CONFIG).is_file():  # a folder of that name may hold anything
        shipped = shipped_model(name)
        if shipped is not None:
            return shipped
        if name == DEFAULT_MODEL:
            raise WeightsError(f"this installation has no weights of {name}; install a wheel, or name a model")
    if Path(source).is_dir():
        return Path(source)
    model, folder = get_model(name), model_folder(name)
    if download:
        from imagebart.weights.download import ensure_model  # what uses the network takes a quarter of a second

        return ensure_model(name)
    if not folder.is_dir():
        raise WeightsError(f"{name} is not on this machine: {model.how_to_install}")
    return folder


def fetch_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model on the Hub; files that are not in huggingface_hub's own cache are downloaded.

    revision: a branch, tag or commit; None: the newest, or the cached one where the Hub cannot be reached. HF_HOME,
    HF_ENDPOINT, HF_HUB_OFFLINE and the Hub's login apply. Raises WeightsError, one sentence, if there is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except RepositoryNotFoundError:
        reason = f"is no model on {constants.ENDPOINT} that you may read; for a private one, log in: `hf auth login`"
    except RevisionNotFoundError:
        reason = f"has no revision {revision}, expected a branch, tag or commit"
    except LocalEntryNotFoundError:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        reason = f"is not on this machine, and {offline}"
    except Exception as error:  # of the HTTP library that huggingface_hub uses
        reason = f"cannot be fetched from {constants.ENDPOINT}: {reason_of(error)}"
    raise WeightsError(f"{name} {reason}")
