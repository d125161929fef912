"""Models on the Hugging Face Hub: model folders, pushed with a card and downloaded by "owner/name".

Downloads are in huggingface_hub's own cache; HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and its login apply.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from imagebart.errors import WeightsError, format_value, reason_of
from imagebart.published.registry import HUB_NAME, default_card
from imagebart.weights.folder import CARD, CONFIG, open_file, read_config

FILES = [CONFIG, "*.safetensors", CARD, "credits.csv", "LICENSE*", "examples/*"]  # of a model's folder


def fetch_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model on the Hub; files that are not in the cache are downloaded.

    revision: a branch, tag or commit; None: the newest, or the cached one where the Hub cannot be reached. Raises
    WeightsError, one sentence, if there is none.
    """
    at = f" at {revision}" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{name} is neither a folder here nor a model on {constants.ENDPOINT} that you may read; for a private "
            "one, log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{name} has no revision {revision}, expected a branch, tag or commit") from error
    except LocalEntryNotFoundError as error:
        raise WeightsError(f"{name}{at} is not on this machine, and {_why_offline()}") from error
    except Exception as error:  # of the HTTP library that huggingface_hub uses
        raise WeightsError(f"{name}{at} cannot be fetched from {constants.ENDPOINT}: {reason_of(error)}") from error


def push_folder(folder: Path, name: str, revision: str | None = None, private: bool = False) -> str:
    """Sends a model's folder to the Hub, where it replaces what is there; returns the address of the commit.

    Where neither folder nor Hub has a README.md, a card is made. revision: the branch; None: main. Raises WeightsError
    for a folder without config.json, and if it cannot be sent.
    """
    if not HUB_NAME.fullmatch(name):
        raise WeightsError(f"the name is {format_value(name)}, expected owner/name")
    config = read_config(folder / CONFIG)
    for pattern in FILES:
        for path in folder.glob(pattern):
            open_file(path, folder).close()  # nothing is sent that a link points to elsewhere
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{name} cannot be sent: {_why_offline()}")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        if not (folder / CARD).is_file() and not api.file_exists(name, CARD, revision=revision):
            card = default_card(config).encode()
            api.upload_file(path_or_fileobj=card, path_in_repo=CARD, repo_id=name, revision=revision)
        sent = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            allow_patterns=FILES,
            delete_patterns="*.safetensors",  # of a model that was there, in other parts
            commit_message=f"{config.about.name or 'A model'} of ImageBART",
        )
    except Exception as error:  # of the HTTP library that huggingface_hub uses
        raise WeightsError(f"{folder} cannot be sent to {name} on {constants.ENDPOINT}: {reason_of(error)}") from error
    return str(sent.commit_url)


def _why_offline() -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE says that nothing may be asked of the network"
    return f"{constants.ENDPOINT} cannot be reached"
