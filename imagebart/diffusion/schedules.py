"""How noise grows: the share of tokens redrawn at each step (ImageBART, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """betas[t - 1] is beta_t, the share of tokens redrawn at step t = 1 .. T; the last is 1."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or any(not 0 < beta <= 1 for beta in self.betas) or self.betas[-1] != 1:
            raise ValueError(f"betas are {self.betas}, expected numbers in (0, 1] of which the last is 1")

    @classmethod
    def geometric(cls, stages: int) -> Schedule:
        """beta_t = 1 / (T - t + 1): the same number of tokens is lost at every step."""
        if stages < 1:
            raise ValueError(f"{stages} stages, expected 1 or more")
        return cls(tuple(1 / (stages - t + 1) for t in range(1, stages + 1)))

    @property
    def stages(self) -> int:
        """T"""
        return len(self.betas)

    def alphacum(self, t: int) -> float:
        """Share of tokens of x_0 that survive to x_t: the product of 1 - beta_s for s <= t."""
        if not 0 <= t <= self.stages:
            raise ValueError(f"t is {t}, expected 0 to {self.stages}")
        survive = 1.0
        for beta in self.betas[:t]:
            survive *= 1 - beta
        return survive
