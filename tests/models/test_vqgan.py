from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imagebart.models.vqgan import FirstStage, FirstStageConfig, Quantizer

BASE = FirstStageConfig(
    resolution=16,
    channels=32,
    multipliers=(1, 2, 1),
    res_blocks=1,
    attention_resolutions=(8,),
    latent_channels=32,
    code_dim=6,
    codebook_size=20,
)
CONFIGS = {
    "plain": BASE,
    "unshuffled": BASE.replace(multipliers=(1, 1), pixel_unshuffle=2),
    "unshuffled by 4": BASE.replace(multipliers=(1,), pixel_unshuffle=4, attention_resolutions=()),
    "unit codes": BASE.replace(unit_codes=True),
    "some codes used": BASE.replace(used_codes=9),
    "used unit codes": BASE.replace(used_codes=9, unit_codes=True, pixel_unshuffle=2),
    "patch": BASE.replace(encoder="patch"),
    "memory": BASE.replace(pair_rows=64, pair_dim=8, pair_bytes=3),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
quantizers = ("plain", "unit codes", "some codes used", "used unit codes")
every_quantizer = pytest.mark.parametrize("config", [CONFIGS[name] for name in quantizers], ids=quantizers)


def build(config: FirstStageConfig) -> FirstStage:
    """Random weights; where some codes are used, not the first ones."""
    model = FirstStage(config)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    if config.used_codes is not None:
        model.quantize.used.copy_(torch.randperm(config.codebook_size)[: config.used_codes].sort().values)
    return model.eval()


def entry(quantizer: Quantizer, token: int) -> Tensor:
    """The code that a token stands for, from the definition."""
    code = quantizer.embedding.weight.detach()[int(quantizer.used[token])]
    return code / code.norm() if quantizer.unit_codes else code


# Quantiser


@every_quantizer
def test_tokens_are_the_nearest_codes_in_use(config: FirstStageConfig) -> None:
    quantizer = build(config).quantize
    z = torch.randn(3, 4, 5, config.code_dim)
    found = quantizer.tokens(z)
    assert found.shape == (3, 4, 5) and found.dtype == torch.long
    for latent, token in zip(z.flatten(0, 2), found.flatten().tolist(), strict=True):
        latent = latent / latent.norm() if config.unit_codes else latent
        distances = [float((latent - entry(quantizer, k)).norm()) for k in range(config.vocab_size)]
        assert token == distances.index(min(distances))


@every_quantizer
def test_codes_are_their_own_nearest(config: FirstStageConfig) -> None:
    quantizer = build(config).quantize
    tokens = torch.arange(config.vocab_size)
    codes = quantizer.codes()[tokens]
    torch.testing.assert_close(codes, torch.stack([entry(quantizer, k) for k in range(config.vocab_size)]))
    assert torch.equal(quantizer.tokens(codes), tokens)
    assert quantizer.codes()[tokens.reshape(1, -1)].shape == (1, config.vocab_size, config.code_dim)


def test_length_of_a_latent_means_nothing_on_the_unit_sphere() -> None:
    quantizer = build(CONFIGS["unit codes"]).quantize
    z = torch.randn(50, 6)
    assert torch.equal(quantizer.tokens(z), quantizer.tokens(100 * z))
    torch.testing.assert_close(quantizer.codes().norm(dim=-1), torch.ones(20))
    plain = build(CONFIGS["plain"]).quantize
    assert not torch.equal(plain.tokens(z), plain.tokens(100 * z))


def test_gradients_pass_straight_through() -> None:
    quantizer = build(CONFIGS["some codes used"]).quantize
    z = torch.randn(2, 3, 6, requires_grad=True)
    codes, tokens = quantizer(z)
    torch.testing.assert_close(codes.detach(), quantizer.codes()[tokens].detach())
    weights = torch.randn_like(codes)
    (codes * weights).sum().backward()
    assert torch.equal(z.grad, weights)  # as if codes were z
    assert quantizer.embedding.weight.grad is None  # the codebook learns from its own loss


def test_gradients_pass_through_the_unit_sphere() -> None:
    """The gradient is that of projecting onto it."""
    quantizer = build(CONFIGS["unit codes"]).quantize
    z = torch.randn(4, 6, requires_grad=True)
    weights = torch.randn(4, 6)
    (quantizer(z)[0] * weights).sum().backward()
    unit = (z / z.norm(dim=-1, keepdim=True)).detach()
    tangent = weights - (weights * unit).sum(-1, keepdim=True) * unit
    torch.testing.assert_close(z.grad, tangent / z.detach().norm(dim=-1, keepdim=True))


@every_config
@torch.no_grad()
def test_tokens_do_not_depend_on_autocast(config: FirstStageConfig) -> None:
    """What a network is trained on in bfloat16 are the tokens that it gets when it is used."""
    model, images = build(config), torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        found, trained_on = model.encode(images), model(images)[2]
    assert torch.equal(found, model.encode(images)) and torch.equal(trained_on.flatten(1), found)


# Sizes


@every_config
@torch.no_grad()
def test_square_images_of_any_size(config: FirstStageConfig) -> None:
    model = build(config)
    f = config.downsampling
    assert f == config.pixel_unshuffle * 2 ** (len(config.multipliers) - 1)
    for side in (1, 4):
        images = torch.rand(2, 3, side * f, side * f) * 2 - 1
        tokens = model.encode(images)
        assert tokens.shape == (2, side**2) and tokens.dtype == torch.long
        assert int(tokens.min()) >= 0 and int(tokens.max()) < config.vocab_size
        decoded = model.decode(tokens)
        assert decoded.shape == images.shape and decoded.dtype == torch.float32
        # The same through codes, in the training's forward.
        reconstruction, latents, grid = model(images)
        assert torch.equal(grid.flatten(1), tokens) and latents.shape == (2, side, side, config.code_dim)
        torch.testing.assert_close(reconstruction, decoded, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_tokens_are_in_raster_order() -> None:
    """With averaging and repeating in the networks' place, token r * columns + c is cell (r, c)."""
    model = build(BASE.replace(code_dim=3))
    model.encoder, model.decoder = torch.nn.AvgPool2d(4), torch.nn.Upsample(scale_factor=4)  # type: ignore[assignment]
    model.quant_conv = model.post_quant_conv = torch.nn.Identity()  # type: ignore[assignment]
    tokens = torch.randint(20, (2, 16))
    images = model.decode(tokens)
    assert images.shape == (2, 3, 16, 16)
    for r in range(4):
        for c in range(4):
            code = model.quantize.codes()[tokens[:, r * 4 + c]]
            assert torch.equal(images[:, :, 4 * r + 1, 4 * c + 2], code)
    assert torch.equal(model.encode(images), tokens)


@torch.no_grad()
def test_pixel_unshuffle_is_of_neighbouring_pixels() -> None:
    """Pixel (y, x) belongs to square (y // 2, x // 2), in encoder and decoder."""
    model = build(CONFIGS["unshuffled"])
    squares = model.encoder.pixel_unshuffle(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert squares[0, :, 0, 1].tolist() == [2, 3, 6, 7]
    assert torch.equal(model.decoder.pixel_shuffle(squares), torch.arange(16.0).reshape(1, 1, 4, 4))


# Gradients and errors


@every_config
def test_every_weight_learns(config: FirstStageConfig) -> None:
    model = build(config)
    reconstruction, latents, tokens = model(torch.rand(2, 3, 16, 16) * 2 - 1)
    codebook_loss = (model.quantize.codes()[tokens] - latents.detach()).square().mean()
    (reconstruction.square().mean() + codebook_loss).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_patch_encoder_sees_its_patch_alone() -> None:
    """Other pixels change no other token, and a patch's token does not depend on its place."""
    model = build(CONFIGS["patch"])
    f = model.config.downsampling
    image = torch.rand(1, 3, 4 * f, 4 * f) * 2 - 1
    tokens = model.encode(image).view(4, 4)
    changed = torch.rand(1, 3, 4 * f, 4 * f) * 2 - 1
    changed[..., f : 2 * f, 2 * f : 3 * f] = image[..., f : 2 * f, 2 * f : 3 * f]
    assert model.encode(changed).view(4, 4)[1, 2] == tokens[1, 2]
    assert torch.equal(model.encode(image.roll((f, f), (2, 3))).view(4, 4), tokens.roll((1, 1), (0, 1)))
    around = build(BASE).latents
    assert not torch.allclose(around(changed)[:, 1, 2], around(image)[:, 1, 2], atol=1e-3)


def with_memory(rows: int = 64) -> FirstStage:
    """A first stage with a memory of random pairs of tokens."""
    model = build(CONFIGS["memory"] if rows == 64 else CONFIGS["memory"].replace(pair_rows=rows))
    memory = model.memory
    assert memory is not None
    for buffer in (memory.own, memory.patterns, memory.mean):
        torch.nn.init.normal_(buffer)
    for side in range(4):
        numbers = torch.randperm(BASE.codebook_size * (BASE.codebook_size + 1))[:rows].sort().values
        memory.pairs[side] = numbers.int()
    memory.values.copy_(torch.randint(256, memory.values.shape))
    torch.nn.init.normal_(memory.books)
    return model


def test_a_memory_knows_a_token_and_its_neighbors_alone() -> None:
    """Beside a loop over patches that looks each pair up in a dictionary."""
    model = with_memory(200)
    memory = model.memory
    assert memory is not None
    tokens = torch.randint(BASE.codebook_size, (2, 5, 6))
    found = memory(tokens)
    known = [
        {
            int(key): sum(book[i] for book, i in zip(memory.books, value.tolist(), strict=True))
            for key, value in zip(pairs, values, strict=True)
        }
        for pairs, values in zip(memory.pairs, memory.values, strict=True)
    ]
    hits = 0
    for b in range(2):
        for y in range(5):
            for x in range(6):
                expected = memory.own[tokens[b, y, x]]
                for side, (row, column) in enumerate(((y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x))):
                    inside = 0 <= row < 5 and 0 <= column < 6
                    other = int(tokens[b, row, column]) if inside else BASE.codebook_size
                    key = int(tokens[b, y, x]) * (BASE.codebook_size + 1) + other
                    hits += key in known[side]
                    expected = expected + known[side].get(key, torch.zeros(8))
                torch.testing.assert_close(found[b, y, x], expected)
    assert 60 < hits < 180  # of 240: so that pairs were looked up


def test_what_a_memory_says_is_added_to_what_the_convolutions_decode() -> None:
    model = with_memory()
    torch.nn.init.normal_(model.decoder.conv_out.weight)
    memory, f = model.memory, model.config.downsampling
    assert memory is not None
    tokens = torch.randint(BASE.codebook_size, (2, 16))
    decoded = model.decode(tokens)
    found = memory(tokens.view(2, 4, 4))
    latents = model.post_quant_conv(model.quantize.codes()[tokens].view(2, 4, 4, -1).permute(0, 3, 1, 2))
    latents = latents + model.memory_conv(found.permute(0, 3, 1, 2))
    patches = (found @ memory.patterns + memory.mean).view(2, 4, 4, 3, f, f)
    expected = model.decoder(latents) + patches.permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 4 * f, 4 * f)
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)


def test_a_memory_s_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="needs decoder 'convolutions'"):
        CONFIGS["memory"].replace(decoder="layered")
    with pytest.raises(ValueError, match="at most 46000 codes"):
        CONFIGS["memory"].replace(codebook_size=60_000)
