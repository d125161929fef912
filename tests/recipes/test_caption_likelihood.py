"""What captions are worth to a network."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_model, tiny_staged_model

from recipes.avatars.caption_likelihood import caption_likelihood
from recipes.avatars.dataset import AvatarDataset


def test_the_likelihood_is_that_of_the_stage_alone() -> None:
    model = tiny_staged_model("text")
    stage = model.stages[1]  # t = T: x_1 from pure noise
    _, gap = caption_likelihood(model, count=6, seed=77, batch=4)
    data = AvatarDataset(32, length=6, seed=77)
    x0 = model.first_stage.encode(torch.stack([data[i]["image"] for i in range(6)]) / 127.5 - 1)
    cond = model.conditioner.encode([data[i]["text"] for i in range(6)]).tokens
    # The decoder-only stage does not see x_t; x_1 is sampled until the mean settles.
    torch.manual_seed(0)
    losses = []
    for _ in range(60):
        noise = torch.randint(model.vocab_size, x0.shape)
        x = torch.where(torch.rand(x0.shape) < model.schedule.alphacum(1), x0, noise)
        losses.append(float(F.cross_entropy(stage.logits(x, x, cond).flatten(0, 1), x.flatten())))
    mean, spread = torch.tensor(losses).mean(), torch.tensor(losses).std()
    assert abs(gap.right - mean) < 4 * spread


def test_a_denoiser_that_ignores_captions_has_no_gap() -> None:
    model = tiny_model()
    blind, _ = caption_likelihood(model, count=4)
    assert blind.right != pytest.approx(blind.without, abs=1e-4), "a denoiser that reads captions"
    assert "from nothing:" in str(blind)
    with torch.no_grad():
        model.denoiser.text_map.weight.zero_()  # whatever the caption, the decoder gets the same
    for gap in caption_likelihood(model, count=4):
        assert gap.right == pytest.approx(gap.without, abs=1e-5)
        assert gap.right == pytest.approx(gap.shuffled, abs=1e-5)


def test_models_without_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="'none'"):
        list(caption_likelihood(tiny_model("none")))
