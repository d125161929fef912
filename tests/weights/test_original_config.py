from __future__ import annotations

from pathlib import Path

import pytest

from imagebart.weights import WeightsError
from imagebart.weights.published.registry import read_stage_yaml

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL

ENCODER_DECODER = (CLASS_MODEL / "scale1.yaml").read_text()


def test_reads_what_is_written() -> None:
    read = read_stage_yaml(CLASS_MODEL / "scale2.yaml")
    assert (read.kind, read.encoder, read.conditioning) == ("decoder_only", None, "class")
    assert (read.decoder.width, read.decoder.depth, read.decoder.heads, read.decoder.head_size) == (32, 2, 2, 16)
    assert (read.decoder.vocab_in, read.decoder.vocab_out, read.decoder.positions) == (100, 48, 18)
    assert (read.decoder.unmasked, read.decoder.attention_bias, read.decoder.head_bias) == (2, True, False)
    assert (read.first_stage.downsampling, read.first_stage.codebook_size, read.first_stage.used_codes) == (4, 64, 48)
    assert read_stage_yaml(RESIDUAL_MODEL / "scale1.yaml").kind == "residual"
    assert read_stage_yaml(CLASS_MODEL / "scale1.yaml").kind == "encoder_decoder"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("model:", "other:", "lacks model"),
        ("model:", "- model:", "lacks model"),
        ("dim: 32", "dim: [32]", "dim is [32], expected a whole number"),
        ("dim: 32", "dim: -32", "dim is -32"),
        ("dim: 32", "dim: true", "dim is True"),
        ("dim: 32", "dim: 100000000", "coder.width is 100000000, expected at most 16384"),
        ("dim: 32", "dim: 32\n        rotary: true", "unknown setting 'rotary'"),
        ("        dim: 32\n", "", "lacks the setting dim"),
        ("ch_mult:", "ch_mult: 5\n          old:", "ch_mult is 5"),
        ("tie_token_emb: false", "tie_token_emb: true", "tie_token_emb is True, expected False"),
        ("in_channels: 3", "in_channels: 4", "in_channels is 4, expected 3"),
        ("imagebart.util.ClassProvider", "os.system", "os.system"),
        ("x_transformer.XTransformer", "x_transformer.Other", "x_transformer.Other"),
        ("diffusion.DenoisingXTransformer", "diffusion.DecoderOnlyDenoiser", "expected"),
        ("vqgan.VQGANWrapper", "vqgan.Other", "vqgan.Other"),
        ("dim: 32", "dim: !!python/object/apply:os.mkdir [executed]", "YAML"),
        ("embed_dim: 32", "embed: 32", "lacks embed_dim"),
    ],
)
def test_odd_configurations_are_named_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scale1.yaml"
    assert old in ENCODER_DECODER
    path.write_text(ENCODER_DECODER.replace(old, new, 1))
    with pytest.raises(WeightsError) as caught:
        read_stage_yaml(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert not (tmp_path / "executed").exists()


# Nine lists of nine, each of the one before: a few hundred bytes that would be said in 10^9 words.
NINE = [b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)]
BOMB = b"a0: &a0 [x]\n" + b"".join(NINE)
BOMB += b"model: {params: *a9, target: *a9}\n"


CONTENTS = [b"", b"model", b"[" * 5000, b"\xff\xfe\x00", b"model: &a [*a]", BOMB, b"#" * 100_001]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scale1.yaml"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="scale1.yaml"):
        read_stage_yaml(path)
