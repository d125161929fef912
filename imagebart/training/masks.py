"""What a denoiser is asked to draw while it is trained: painted pixels, and noise rates before and after a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS_PER_PATCH = 4  # strokes and boxes end on every fourth part of a cell
P_ALIGNED = 0.4  # share of regions that paint all of the cells that they touch
P_KEEP_COLOR_PATCHES = 0.3  # share of pictures of which all of a colour is painted but for a small place
NEAR = 0.15  # how far two pixels of one colour may be apart in a channel of [-1, 1]
EDGES, LARGER = 20, 1 / 4  # how many times likelier that place is where the colour meets another; its longest side
P_MIXED_PATCHES = 0.8  # share of these places that hold cells of that colour and another only
MARGIN = 3  # most parts of cells that are painted around the colour
P_EVERYTHING = 0.3  # share of pictures of which nothing is known
P_KEEP_BOXES, SMALL = 0.25, 1 / 6  # share of pictures of which only small boxes are known; their longest side
P_INVERTED = 0.5  # share of the other regions that are all but what was drawn up
MOST_BOXES = 3
SHORTER = 1.5  # power of a uniform draw that says how long a box is: above 1, more of them are short
P_FULL_NOISE, LEAST = 0.5, 0.1  # share of steps from pure noise; the least rate of the others
P_TO_X0 = 0.65  # share of steps that end at x_0


def random_masks(batch: int, side: int) -> Tensor:
    """Regions to draw, bool [B, side^2]: everything, half planes, strokes, one to three boxes, or all but those."""
    regions = torch.stack([_region(side) for _ in range(batch)])
    inverted = torch.rand(batch, 1, 1) < P_INVERTED
    regions = torch.where(inverted, ~regions, regions)
    peepholes = torch.stack([~_boxes(side, max(1, round(SMALL * side))) for _ in range(batch)])
    regions = torch.where(torch.rand(batch, 1, 1) < P_KEEP_BOXES, peepholes, regions)
    whole = (torch.rand(batch) < P_EVERYTHING) | ~regions.flatten(1).any(1)
    return (regions | whole[:, None, None]).flatten(1)


def painted_masks(images: Tensor, grid: int) -> Tensor:
    """Masks as people paint them, for grid x grid cells: bool [B, S, S], S = PARTS_PER_PATCH grid.

    images: float [B, 3, S, S] in [-1, 1].
    """
    batch, side = len(images), PARTS_PER_PATCH * grid
    painted = random_masks(batch, side).view(batch, 1, side, side)
    touched = F.interpolate(F.max_pool2d(painted.float(), PARTS_PER_PATCH), scale_factor=PARTS_PER_PATCH).bool()
    painted = torch.where(torch.rand(batch, 1, 1, 1) < P_ALIGNED, touched, painted)[:, 0]
    return torch.where(torch.rand(batch, 1, 1) < P_KEEP_COLOR_PATCHES, keep_color_patches(images, side), painted)


def keep_color_patches(images: Tensor, side: int) -> Tensor:
    """All of one colour of each picture, with some of what is around it, but for a small place: bool [B, side, side].

    What is drawn can be told from that place only. Cells that show nothing else are painted there, too, in most
    masks: a network would learn to read colours off these alone, and not off cells that two things share. Half
    of the masks hold one more region.
    """
    pixels = F.interpolate(images, (side, side))
    apart = F.max_pool2d(pixels, 3, 1, 1) + F.max_pool2d(-pixels, 3, 1, 1)
    places = torch.multinomial(1 + EDGES * (apart.amax(1) > NEAR).flatten(1).float(), 1)
    colours = pixels.flatten(2).gather(2, places[:, None].expand(-1, pixels.shape[1], -1))
    alike = ((pixels.flatten(2) - colours).abs().amax(1) < NEAR).view(-1, 1, side, side).float()
    margin = int(torch.randint(MARGIN + 1, ()))
    painted = F.max_pool2d(alike, 2 * margin + 1, 1, margin)[:, 0] > 0
    more = torch.stack([_region(side) for _ in images]) & (torch.rand(len(images), 1, 1) < 0.5)
    kept = torch.stack([_box_around(*divmod(int(place), side), side) for place in places])
    pure = F.interpolate(-F.max_pool2d(-alike, PARTS_PER_PATCH), scale_factor=PARTS_PER_PATCH)[:, 0] == 1
    shared = torch.rand(len(images), 1, 1) < P_MIXED_PATCHES
    painted = ((painted | more) & ~kept) | (pure & shared)
    return painted | ~painted.flatten(1).any(1)[:, None, None]


def _box_around(row: int, column: int, side: int) -> Tensor:
    """A small box that holds a place: bool [side, side]."""
    lengths = [_length(max(1, round(LARGER * side))) for _ in range(2)]
    box = torch.zeros(side, side, dtype=torch.bool)
    top, left = (max(0, at - int(torch.randint(n, ()))) for at, n in zip((row, column), lengths, strict=True))
    box[top : top + lengths[0], left : left + lengths[1]] = True
    return box


def _region(side: int) -> Tensor:
    """A half plane, a brush stroke or one to three boxes: bool [side, side]."""
    kind = int(torch.randint(4, ()))
    if kind == 0:
        return _half_plane(side)
    if kind == 1:
        return _stroke(side)
    return _boxes(side, side)


def _boxes(side: int, longest: int) -> Tensor:
    """One to three boxes."""
    region = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(int(torch.randint(1, MOST_BOXES + 1, ()))):
        (top, bottom), (left, right) = _span(side, longest), _span(side, longest)
        region[top:bottom, left:right] = True
    return region


def _half_plane(side: int) -> Tensor:
    """The rows above a line, or the columns left of one."""
    along = torch.arange(side)
    along = along[:, None] if torch.rand(()) < 0.5 else along[None]
    return (along < int(torch.randint(1, side, ()))).expand(side, side)


def _stroke(side: int) -> Tensor:
    """All tokens within half a brush of a line with one bend."""
    ends = torch.rand(3, 2) * side
    along = torch.linspace(0, 1, 2 * side)[:, None]
    line = torch.cat([torch.lerp(ends[0], ends[1], along), torch.lerp(ends[1], ends[2], along)])
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    radius = 0.75 + torch.rand(()) * side / 4
    return (torch.cdist(torch.stack([rows, columns], -1).flatten(0, 1), line).amin(1) <= radius).view(side, side)


def _span(side: int, longest: int) -> tuple[int, int]:
    """From and to along one side."""
    length = _length(longest)
    begin = int(torch.randint(0, side - length + 1, ()))
    return begin, begin + length


def _length(longest: int) -> int:
    """Short ones come more often, for what is kept may be a narrow strip."""
    return 1 + int(torch.rand(()) ** SHORTER * (longest - 1))


@dataclass(frozen=True)
class Step:
    """Noise levels of a step of each row, [B, 1]: before it and after it, 0 <= noise_s < noise_t <= 1."""

    noise_t: Tensor
    noise_s: Tensor

    @classmethod
    def random(cls, batch: int) -> Step:
        noise_t = torch.where(torch.rand(batch, 1) < P_FULL_NOISE, 1.0, LEAST + (1 - LEAST) * torch.rand(batch, 1))
        return cls(noise_t, torch.where(torch.rand(batch, 1) < P_TO_X0, 0.0, noise_t * torch.rand(batch, 1)))

    @property
    def beta(self) -> Tensor:
        """The share of tokens that is redrawn from x_s to x_t."""
        return 1 - (1 - self.noise_t) / (1 - self.noise_s)

    def to(self, device: torch.device) -> Step:
        return Step(self.noise_t.to(device), self.noise_s.to(device))
