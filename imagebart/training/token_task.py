"""What trainings on the tokens of images share: a frozen first stage, captions and what reads them, cached tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from imagebart.core.atomic_io import write_bytes
from imagebart.core.errors import InputError
from imagebart.imaging.files import normalize
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.transformer import TextEncoder, TextEncoderConfig
from imagebart.models.vqgan import FirstStage
from imagebart.text.conditioners import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.text.prompts import CONTEXT_LENGTH, pieces_of
from imagebart.training.config import StageShape, TokensRun
from imagebart.training.data import AugmentedViews, ImageStore, stored_dataset
from imagebart.training.loop import Batch, Task, train
from imagebart.training.vqgan import load_first_stage
from imagebart.weights.folder import load_networks

MIN_LENGTH = 16  # conditioning tokens a caption

R = TypeVar("R", bound=TokensRun)

# A run's data set, of images of so many pixels a side with their texts, and the conditioner for these.
Data = Callable[[TokensRun, int], tuple[Dataset[Any], Conditioner]]


@dataclass
class TokensTask(Task, Generic[R]):
    model: nn.Module
    conditioner: Conditioner
    first_stage: FirstStage
    dataset: Dataset[Any]
    run: R
    held_out: Dataset[Any] | None = None  # what grids show; without it, the end of the data set

    def __post_init__(self) -> None:
        self.vocab_size = self.first_stage.config.vocab_size

    def tokens(self, batch: Batch) -> Tensor:
        """The tokens of a batch, int64 [B, N]: cached ones, or those of its images."""
        return batch["tokens"] if "tokens" in batch else self.encode(batch["image"])

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 images -> tokens, by the frozen first stage."""
        self.first_stage.to(images.device)
        return self.first_stage.encode(normalize(images).to(memory_format=torch.channels_last))

    def cond_tokens(self, batch: Batch, device: torch.device) -> Tensor | None:
        """Conditioning tokens, dropped for a share of the captions so that guidance works."""
        cond = self.condition_on(batch["text"])
        if cond is None:
            return None
        unconditional = self.conditioner.unconditional(len(cond))
        dropped = (torch.rand(len(cond), 1) < self.run.conditioning_dropout) & ~needs_text(batch)
        return torch.where(dropped, unconditional, cond).to(device)

    def condition_on(self, texts: Sequence[str]) -> Tensor | None:
        """Conditioning tokens; None for a network that takes none."""
        return self.conditioner.encode(texts).tokens if self.conditioner.length else None

    def examples(self, count: int, device: torch.device) -> tuple[Tensor, list[str]]:
        dataset = self.dataset if self.held_out is None else self.held_out
        numbers = range(len(dataset))  # type: ignore[arg-type]
        items = [dataset[i] for i in (numbers[-count:] if self.held_out is None else numbers[:count])]
        batch = send_to_device(default_collate(items), device)
        return self.tokens(batch), batch["text"]


def needs_text(batch: Batch) -> Tensor:
    """Whose captions are never dropped, bool [B, 1]: those that a data set says so of ("needs_text"); else none."""
    given: Tensor | None = batch.get("needs_text")
    return torch.zeros(len(batch["text"]), 1, dtype=torch.bool) if given is None else given.cpu()[:, None]


def conditioner_of(kind: str, texts: Sequence[str], length: int | None = None) -> Conditioner:
    """The conditioner for captions ("text", of `length` tokens or of the longest) or classes ("class"), if any."""
    known = sorted({text for text in texts if text})
    if kind == "class" and known:
        return ClassConditioner(names=tuple(known), null_class=True)
    if kind == "text" and known:
        longest = max(sum(len(piece.ids) for piece in pieces_of(text)) for text in known)
        return TextConditioner.from_captions(known, length or min(max(longest, MIN_LENGTH), CONTEXT_LENGTH))
    return NoConditioner()


def text_config(shape: StageShape, conditioner: Conditioner) -> TextEncoderConfig:
    """A text encoder of the shape of the encoder of x_t."""
    words, length = conditioner.vocab_size + shape.query_tokens, conditioner.length + shape.query_tokens
    return TextEncoderConfig(
        transformer=shape.encoder(words, length), query_tokens=shape.query_tokens, conv_width=shape.conv_width
    )


def prefix_size(conditioner: Conditioner, text: TextEncoderConfig | None) -> tuple[int, int]:
    """The number of conditioning or query tokens before an image's tokens, and the size of their vocabulary."""
    return (conditioner.length, conditioner.vocab_size) if text is None else (text.query_tokens, text.query_tokens)


@dataclass(frozen=True)
class TokenTaskInputs:
    first_stage: FirstStage
    dataset: Dataset[Any]
    conditioner: Conditioner
    text: TextEncoderConfig | None  # of what reads captions; None for other conditioning tokens
    text_encoder: TextEncoder | None  # a trained one, which stays as it is

    @classmethod
    def of(cls, run: TokensRun, folder: Path, data: Data | None) -> "TokenTaskInputs":
        """As a run's settings say; seeds the global RNG. data: None for a folder of images."""
        first_stage = load_first_stage(run.first_stage)
        first_stage = first_stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = first_stage.config.resolution
        if data is None:
            dataset: Any = stored_dataset(run.data, size, folder / "pictures")
            conditioner = conditioner_of(run.conditioning, dataset.texts, run.text_length)
        else:
            dataset, conditioner = data(run, size)
        torch.manual_seed(run.loop.seed)
        if run.text_from is not None:
            encoder, conditioner = load_text_encoder(Path(run.text_from))
            return cls(first_stage, dataset, conditioner, encoder.config, encoder)
        text = text_config(run.shape, conditioner) if conditioner.kind == "text" else None
        return cls(first_stage, dataset, conditioner, text, None)

    def freeze_text_encoder(self, network: Any) -> None:
        """Gives a network the trained text encoder, if there is one."""
        if self.text_encoder is not None:
            network.text.load_state_dict(self.text_encoder.state_dict())
            network.text.requires_grad_(False)


def load_text_encoder(folder: Path) -> tuple[TextEncoder, TextConditioner]:
    """The text encoder in a run's or a model's folder, and the conditioner whose words it reads."""
    model: Any = load_networks(folder)
    if model.text is None or not isinstance(model.conditioner, TextConditioner):
        raise InputError(f"{folder} has no text encoder.")
    return model.text, model.conditioner


@torch.no_grad()
def encode_store(store: ImageStore, first_stage: FirstStage, views: int, path: Path) -> None:
    """Writes the tokens of each image in so many views, int32 [images, views, N], unless they are there."""
    if path.exists():
        return
    device = next(first_stage.parameters()).device
    count, parts = len(store.index.names), []
    for view in tqdm(range(views), desc="tokens", unit="view"):
        for numbers in torch.arange(count).split(32):
            images = torch.stack([store.view(int(number), view) for number in numbers])
            parts.append(first_stage.encode(normalize(images.to(device))).cpu().to(torch.int32))
    tokens = torch.cat(parts).unflatten(0, (views, count)).transpose(0, 1).contiguous()
    write_bytes(path, save({"tokens": tokens}))


class TokenDataset(AugmentedViews):
    """Some images of a store, in all their views, with their tokens, int64 [N], beside image and text."""

    def __init__(self, path: Path, store: ImageStore, numbers: Sequence[int]) -> None:
        """path: of what `encode_store` wrote; numbers: of the images."""
        self.all = load_file(path)["tokens"]
        super().__init__(store, numbers, self.all.shape[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        return {**super().__getitem__(index), "tokens": self.all[self.numbers[place], view].long()}


# Embeddings that are trained as a table plus a linear map of the codebook's vectors, and merged into a table at the
# end. A patch that two objects share has one of hundreds of codes, each of them rare; a table alone learns each on its
# own, and slowly. With the map, codes with similar vectors are learned together, in heads too.


class _CodebookMap(nn.Module):
    """Adds to rows [V, D] of K codes, and of V - K others, a linear map of the codes' vectors [K, C]."""

    codes: Tensor

    def __init__(self, codes: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", (codes - codes.mean(0)) / codes.std())
        self.map = nn.Parameter(torch.zeros(codes.shape[1], width))

    def forward(self, table: Tensor) -> Tensor:
        return table + F.pad(self.codes @ self.map, (0, 0, 0, len(table) - len(self.codes)))


def token_tables(network: Denoiser | Stage) -> Iterator[nn.Embedding | nn.Linear]:
    """The layers that have a row for each code: embeddings of tokens, and heads."""
    for part in (network.decoder, getattr(network, "encoder", None)):
        if part is not None:
            yield part.token_embedding
            if isinstance(part.head, nn.Linear):
                yield part.head
    if isinstance(network, Denoiser):
        yield network.draft_head


def add_codebook_embedding(tables: Iterable[nn.Embedding | nn.Linear], codes: Tensor) -> None:
    """From here on tables are their own rows plus a linear map, at first zero, of codes' vectors [K, C]."""
    for table in tables:
        added = _CodebookMap(codes, table.weight.shape[1])
        parametrize.register_parametrization(table, "weight", added)


def merge_codebook_embedding(model: nn.Module) -> None:
    """Merges the maps into the tables, in the whole of a model."""
    for part in list(model.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)


def train_network(task: TokensTask[Any], tables: Iterable[nn.Embedding | nn.Linear], folder: Path) -> Any:
    """Trains a task's network, with a map of the codebook in its tables; returns it with averaged weights."""
    add_codebook_embedding(tables, task.first_stage.quantize.codes().detach())
    trained = train(task, task.run.loop, folder)
    merge_codebook_embedding(trained)
    return trained
