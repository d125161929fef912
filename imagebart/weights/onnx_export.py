"""A model's networks as ONNX graphs with their weights, to be run without PyTorch: in a browser, or where a processor
has a runtime of its own.

Here PyTorch runs them: an edit by ONNX Runtime takes as long (docs/benchmarks.md). The graphs are of one shape for all
batches and sequences of any size. What lies between them is arithmetic on a few arrays: noise levels, Gumbel
noise, `models.diffusion.reverse_step` and the drafts.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from imagebart.core.errors import InputError, WeightsError, reason_of
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.vqgan import FirstStage

OPSET = 20  # of ONNX's operators
TOLERANCE = 1e-3  # largest difference from PyTorch's numbers, as a share of the largest number


class ImageEncoder(nn.Module):
    """Images float [B, 3, S, S] in [-1, 1] -> tokens int64 [B, N]."""

    def __init__(self, first_stage: FirstStage) -> None:
        super().__init__()
        self.first_stage = first_stage

    def forward(self, images: Tensor) -> Tensor:
        return self.first_stage.encode(images)


class ImageDecoder(ImageEncoder):
    """Tokens int64 [B, N] -> images float [B, 3, S, S], about [-1, 1]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.first_stage.decode(tokens)


class StepEncoder(nn.Module):
    """What is computed once a step, see `Denoiser.prepare`.

    x_t int64, noise_t and noise_s float, all [B, N], prompt [B, query_tokens, width] and hints [B, N, width] -> the
    decoder's prefix [B, P], what is added to its embeddings [B, P - 1 + N, width], the keys and values of
    cross-attention [depth, 2, B, heads, P + N, head_size], w log q(x_t | x_0), which belongs to all logits, [B, N, K],
    and logits of drafts of x_0 with it.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, prompt: Tensor, hints: Tensor
    ) -> tuple[Tensor, ...]:
        given = {"cond": prompt, "prompt_embeds": prompt, "hint_embeds": hints}
        cache, encoded = self.denoiser.prepare(x_t, noise_t, noise_s, **given)
        assert cache.cross_kv is not None and cache.added_embeds is not None
        cross = torch.stack([torch.stack(layer) for layer in cache.cross_kv])
        drafts = self.denoiser.draft_head(encoded)
        evidence = self.denoiser.add_x_t_evidence(torch.zeros_like(drafts), x_t, noise_t)
        return cache.prefix, cache.added_embeds, cross, evidence, drafts + evidence


class StepDecoder(StepEncoder):
    """A pass of the decoder over S tokens, see `Transformer.decode`.

    tokens int64 [B, S], what is added to their embeddings [B, S, width], their positions int64 [B, S], keys and values
    of self-attention [depth, 2, B, heads, M, head_size] and of cross-attention -> the decoder's logits [B, S, K], and
    its own keys and values, which go to their positions.
    """

    def forward(
        self, tokens: Tensor, added: Tensor, positions: Tensor, kept: Tensor, cross: Tensor
    ) -> tuple[Tensor, ...]:
        decoder, new = self.denoiser.decoder, []
        x = decoder.token_embedding(tokens) + decoder.position_embedding[positions] + added
        mask = torch.where(torch.arange(kept.shape[4]) <= positions[..., None], 0.0, -torch.inf)[:, None]
        at = torch.arange(len(x))[:, None, None], torch.arange(kept.shape[3])[:, None], positions[:, None]
        for block, before, of_encoder in zip(decoder.blocks, kept, cross, strict=True):
            attention = block.attention
            q, k, v = attention.split_heads(attention.qkv(attention.norm(x)), 3)
            new.append(torch.stack([k, v]))
            k, v = (old.index_put(at, own) for old, own in zip(before, (k, v), strict=True))
            weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + mask).softmax(-1)
            x = x + attention.out((weights @ v).transpose(1, 2).flatten(2))
            x = x + block.get_submodule("cross")(x, of_encoder)
            x = x + block.feed_forward(x)
        return decoder.head(decoder.norm(x)), torch.stack(new)


@dataclass(frozen=True)
class Graph:
    network: nn.Module
    example: tuple[Tensor, ...]
    sizes: tuple[tuple[int, ...], ...]  # of each argument, the dimensions that are of any size


def graphs(model: ImageBARTModel, count: int = 6) -> dict[str, Graph]:
    """A model's graphs by name, with examples of `count` tokens; InputError without a denoiser that reads words."""
    denoiser = model.denoiser
    if denoiser is None or denoiser.config.text is None:
        raise InputError("There are graphs of models with a denoiser and a text encoder, not of this one.")
    size, text, shape = model.first_stage.config.resolution, denoiser.config.text, denoiser.config.decoder
    tokens, levels = torch.randint(model.vocab_size, (2, count)), torch.rand(2, count)
    positions, width = torch.arange(count).expand(2, -1).contiguous(), denoiser.config.encoder.width
    prompt, hints = torch.rand(2, text.query_tokens, text.transformer.width), torch.rand(2, count, width)
    # Examples are tensors of their own: two arguments that are one tensor would become one in the graph.
    kept, cross = (torch.rand(shape.depth, 2, 2, shape.heads, length, shape.head_size) for length in (2 * count, 21))
    images, grids = torch.rand(2, 3, size, size), torch.randint(model.vocab_size, (2, model.tokens))
    words, each = torch.zeros(2, denoiser.config.cond_length, dtype=torch.long), (0, 1)
    return {
        "image_encoder": Graph(ImageEncoder(model.first_stage), (images,), ((0,),)),
        "image_decoder": Graph(ImageDecoder(model.first_stage), (grids,), ((0,),)),
        "text_encoder": Graph(denoiser.text, (words,), ((0,),)),
        "step_encoder": Graph(
            StepEncoder(denoiser),
            (tokens, levels, levels.clone(), prompt, hints),
            (each, each, each, (0,), each),
        ),
        "step_decoder": Graph(
            StepDecoder(denoiser),
            (tokens, torch.rand(2, count, shape.width), positions, kept, cross),
            (each, each, each, (2, 4), (2, 4)),
        ),
    }


def export_graphs(made_of: dict[str, Graph], folder: Path) -> list[Path]:
    """Writes graphs to a folder. Raises WeightsError where one computes something else than its network."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"Graphs need packages: pip install 'imagebart[onnx]' ({reason_of(error)}).") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, graph in made_of.items():
        paths.append(path := folder / f"{name}.onnx")
        sizes = tuple(dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC) for dimensions in graph.sizes)
        network = graph.network.eval()
        program = torch.onnx.export(network, graph.example, dynamo=True, opset_version=OPSET, dynamic_shapes=sizes)
        assert program is not None
        program.save(path)
        with torch.no_grad():
            expected = tree_leaves(network(*graph.example))
        session = onnxruntime.InferenceSession(path)
        feeds = {one.name: given.numpy() for one, given in zip(session.get_inputs(), graph.example, strict=True)}
        for found, wanted in zip(session.run(None, feeds), expected, strict=True):
            if (torch.from_numpy(found) - wanted).abs().max() > TOLERANCE * wanted.abs().max():
                raise WeightsError(f"{path} computes something else than the network that it was made from")
    return paths
