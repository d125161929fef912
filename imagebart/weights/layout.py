"""How the published checkpoints name the tensors of a stage, and which of them ours are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagebart.models.published import StageConfig
from imagebart.weights.modules import Shapes

Sources = dict[str, tuple[str, ...]]  # our tensor: the published ones that it is made of, one under the other
Tensors = dict[str, tuple[int, ...]]  # names and shapes


@dataclass
class Layout:
    """A stage's tensors under their published names."""

    sources: Sources
    unused: Tensors = field(default_factory=dict)  # trained, but without effect
    buffers: Tensors = field(default_factory=dict)  # constants that we compute

    def published_shapes(self, ours: Shapes) -> Tensors:
        """The shape of each published tensor, given those of ours."""
        shapes = self.unused | self.buffers
        for name, parts in self.sources.items():
            rows, *rest = ours[name]
            leading = (1,) if parts == ("pos_emb",) else ()  # minGPT keeps a batch axis there
            shapes.update({part: (*leading, rows // len(parts), *rest) for part in parts})
        return shapes


def stage_layout(config: StageConfig) -> Layout:
    """The published layout of an encoder-decoder, residual or decoder-only stage."""
    if config.kind == "decoder_only":
        return _gpt(config)
    assert config.encoder is not None, "only decoder-only stages have no encoder"
    sources = _x_transformer("encoder", config.encoder.depth, cross=False)
    sources |= _x_transformer("decoder", config.decoder.depth, cross=True)
    sources |= _linear("decoder.head", "decoder.to_logits")
    if config.kind == "residual":
        sources["log_scalors"] = ("log_scalors",)
    # The encoder is a whole language model there; its logits go nowhere.
    encoder = config.encoder
    unused: Tensors = {
        "encoder.to_logits.weight": (encoder.vocab_in, encoder.width),
        "encoder.to_logits.bias": (encoder.vocab_in,),
    }
    return Layout(sources, unused)


def _x_transformer(part: str, depth: int, cross: bool) -> Sources:
    """A flat list of layers, each (norm, function): self-attention, cross-attention if any, feed-forward."""
    sources: Sources = {
        f"{part}.token_embedding.weight": (f"{part}.token_emb.weight",),
        f"{part}.position_embedding": (f"{part}.pos_emb.emb.weight",),
        **_linear(f"{part}.norm", f"{part}.norm"),
    }
    for i in range(depth):
        ours = f"{part}.blocks.{i}"
        first, *middle, last = (f"{part}.attn_layers.layers.{n}" for n in range(i * (2 + cross), (i + 1) * (2 + cross)))
        sources |= _linear(f"{ours}.attention.norm", f"{first}.0")
        sources[f"{ours}.attention.qkv.weight"] = _each(f"{first}.1.to_{{}}.weight", "q", "k", "v")
        sources |= _linear(f"{ours}.attention.out", f"{first}.1.to_out")
        for layer in middle:
            sources |= _linear(f"{ours}.cross.norm", f"{layer}.0")
            sources[f"{ours}.cross.q.weight"] = (f"{layer}.1.to_q.weight",)
            sources[f"{ours}.cross.kv.weight"] = _each(f"{layer}.1.to_{{}}.weight", "k", "v")
            sources |= _linear(f"{ours}.cross.out", f"{layer}.1.to_out")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{last}.0")
        sources |= _linear(f"{ours}.feed_forward.up", f"{last}.1.net.0.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{last}.1.net.2")
    return sources


def _gpt(config: StageConfig) -> Layout:
    """minGPT, which keeps the causal mask of each block as a tensor."""
    sources: Sources = {
        "decoder.token_embedding.weight": ("tok_emb.weight",),
        "decoder.position_embedding": ("pos_emb",),
        "decoder.head.weight": ("head.weight",),
        **_linear("decoder.norm", "ln_f"),
    }
    for i in range(config.decoder.depth):
        ours, theirs = f"decoder.blocks.{i}", f"blocks.{i}"
        sources |= _linear(f"{ours}.attention.norm", f"{theirs}.ln1")
        for kind in ("weight", "bias"):
            qkv = _each(f"{theirs}.attn.{{}}.{kind}", "query", "key", "value")
            sources[f"{ours}.attention.qkv.{kind}"] = qkv
        sources |= _linear(f"{ours}.attention.out", f"{theirs}.attn.proj")
        sources |= _linear(f"{ours}.feed_forward.norm", f"{theirs}.ln2")
        sources |= _linear(f"{ours}.feed_forward.up", f"{theirs}.mlp.0")
        sources |= _linear(f"{ours}.feed_forward.down", f"{theirs}.mlp.2")
    mask = (1, 1, config.decoder.positions, config.decoder.positions)
    buffers: Tensors = {f"blocks.{i}.attn.mask": mask for i in range(config.decoder.depth)}
    return Layout(sources, buffers=buffers)


def _linear(ours: str, theirs: str) -> Sources:
    return {f"{ours}.{kind}": (f"{theirs}.{kind}",) for kind in ("weight", "bias")}


def _each(template: str, *parts: str) -> tuple[str, ...]:
    return tuple(template.format(part) for part in parts)
