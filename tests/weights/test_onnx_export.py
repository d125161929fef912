"""A model's ONNX graphs, run with NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import tiny_model, tiny_staged_model

from imagebart.models.transformer import TransformerConfig
from imagebart.weights.onnx_export import export_graphs, graphs


def draw(run: Any, shape: TransformerConfig, words: np.ndarray, x_t: np.ndarray) -> np.ndarray:
    """The likeliest x_0 of x_t, int64 [B, N], token by token, the cache filled as far as there are tokens."""
    levels, hints = np.ones(x_t.shape, np.float32), np.zeros((*x_t.shape, shape.width), np.float32)
    (prompt,) = run("text_encoder", words)
    tokens, added, cross, evidence, _ = run("step_encoder", x_t, levels, np.zeros_like(levels), prompt, hints)
    kept = np.zeros((shape.depth, 2, len(x_t), shape.heads, shape.positions, shape.head_size), np.float32)
    first, begin = tokens.shape[1], 0
    for end in range(first, first + x_t.shape[1]):
        positions = np.broadcast_to(np.arange(begin, end), (len(x_t), end - begin))
        part = np.s_[:, begin:end]
        logits, kept[:, :, :, :, begin:end] = run("step_decoder", tokens[part], added[part], positions, kept, cross)
        token, begin = (logits[:, -1] + evidence[:, end - first]).argmax(-1), end
        tokens = np.concatenate([tokens, token[:, None]], 1)
    return tokens[:, first:]


@pytest.mark.slow
def test_graphs_draw_what_the_model_draws(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graphs of models with a denoiser"):
        graphs(tiny_staged_model("text"))
    model = tiny_model("text")
    sessions = {path.stem: onnxruntime.InferenceSession(path) for path in export_graphs(graphs(model), tmp_path)}

    def run(name: str, *given: Any) -> list[np.ndarray]:
        return sessions[name].run(
            None, {one.name: arg for one, arg in zip(sessions[name].get_inputs(), given, strict=True)}
        )

    x_t, words = torch.randint(model.vocab_size, (2, model.tokens)), model.conditioner.encode(["red", "a hat"]).tokens
    found = torch.from_numpy(draw(run, model.denoiser.config.decoder, words.numpy(), x_t.numpy()))
    settings = {"top_k": 1, "scales": 1, "guidance": 1.0, "corrector_steps": 0}
    assert torch.equal(found, model.sample(2, words, start=x_t, **settings))
    (images,) = run("image_decoder", x_t.numpy())
    torch.testing.assert_close(torch.from_numpy(images), model.first_stage.decode(x_t), rtol=1e-4, atol=1e-4)
    (again,) = run("image_encoder", images)
    assert torch.equal(torch.from_numpy(again), model.first_stage.encode(torch.from_numpy(images)))
