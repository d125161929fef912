"""What is known of a published stage before its checkpoint is read, in the published models' own terms."""

from __future__ import annotations

from dataclasses import dataclass

from imagebart.conditioning import ClassConditioner, ClipTextConditioner, Conditioner, Kind, NoConditioner
from imagebart.models.first_stage import FirstStageConfig
from imagebart.models.published import Kind as StageKind
from imagebart.models.published import StageConfig
from imagebart.models.transformer import TransformerConfig


@dataclass(frozen=True)
class Description:
    """A first stage and one stage on it."""

    first_stage: FirstStageConfig
    kind: StageKind
    decoder: TransformerConfig
    encoder: TransformerConfig | None
    conditioning: Kind  # its tokens share the image tokens' embeddings

    @property
    def tokens(self) -> int:
        """N, image tokens a picture."""
        return self.first_stage.tokens

    @property
    def conditioner(self) -> Conditioner:
        """Class models know as many classes as there are embeddings, by number.

        Text models have as many tokens as their longest sequence leaves beside t and the image's. Raises ValueError
        where it leaves none.
        """
        if self.conditioning == "none":
            return NoConditioner()
        reader = self.encoder or self.decoder
        if self.conditioning == "class":
            return ClassConditioner(tuple(str(i) for i in range(reader.vocab_in)))
        length = reader.positions - 1 - self.tokens
        if length < 1:
            raise ValueError(
                f"a longest sequence of {reader.positions}, expected more than t and the {self.tokens} image tokens of "
                "a model with a text"
            )
        return ClipTextConditioner(length, min(reader.vocab_in, ClipTextConditioner.vocab_size))

    def stage_config(self, t: int, beta: float, start_token: int) -> StageConfig:
        """Stage t, with what only the checkpoint knows: beta_t and the decoder's start token."""
        assert self.decoder.vocab_out is not None
        return StageConfig(
            kind=self.kind,
            t=t,
            vocab_size=self.decoder.vocab_out,
            tokens=self.tokens,
            beta=beta,
            decoder=self.decoder,
            encoder=self.encoder,
            cond_length=self.conditioner.length,
            start_token=start_token,
        )


def vqgan(
    ch: int,
    ch_mult: list[int],
    num_res_blocks: int,
    attn_resolutions: list[int],
    resolution: int,
    z_channels: int,
    embed_dim: int,
    n_embed: int,
) -> FirstStageConfig:
    """A published first stage, with all its codes in use."""
    return FirstStageConfig(
        resolution=resolution,
        channels=ch,
        multipliers=tuple(ch_mult),
        res_blocks=num_res_blocks,
        attention_resolutions=tuple(attn_resolutions),
        latent_channels=z_channels,
        code_dim=embed_dim,
        codebook_size=n_embed,
    )


def encoder_decoder(
    dim: int,
    enc_num_tokens: int,
    enc_depth: int,
    enc_heads: int,
    enc_max_seq_len: int,
    dec_num_tokens: int,
    dec_depth: int,
    dec_heads: int,
    dec_max_seq_len: int,
) -> tuple[TransformerConfig, TransformerConfig]:
    """Encoder and decoder of a published encoder-decoder stage; heads have size 64 whatever the width."""
    encoder = TransformerConfig(dim, enc_depth, enc_heads, enc_num_tokens, enc_max_seq_len, causal=False)
    decoder = TransformerConfig(
        dim, dec_depth, dec_heads, dec_num_tokens, dec_max_seq_len, vocab_out=dec_num_tokens, cross=True
    )
    return encoder, decoder


def gpt(
    vocab_size: int,
    block_size: int,
    n_layer: int,
    n_head: int,
    n_embd: int,
    input_vocab_size: int | None = None,
    n_unmasked: int = 0,
) -> TransformerConfig:
    """The decoder-only transformer of a published coarsest stage."""
    return TransformerConfig(
        n_embd,
        n_layer,
        n_head,
        input_vocab_size or vocab_size,
        block_size,
        head_size=n_embd // n_head,
        vocab_out=vocab_size,
        unmasked=n_unmasked,
        attention_bias=True,
        head_bias=False,
    )
