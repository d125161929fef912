"""Multinomial diffusion of tokens: pure functions on tensors (ImageBART, section 3.1)."""

from imagebart.diffusion.forward import diffuse, log_likelihood, redraw
from imagebart.diffusion.posterior import posterior, reverse_step
from imagebart.diffusion.schedules import Schedule

__all__ = ["Schedule", "diffuse", "log_likelihood", "posterior", "redraw", "reverse_step"]
