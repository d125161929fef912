"""What a denoiser is trained to predict: masks as people paint them, and noise levels before and after a step."""

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS_PER_PATCH = 4  # along a side: masks end on these parts
P_EVERYTHING = 0.3  # share of images of which nothing is kept
P_KEEP_BOXES, KEPT_BOX_SIDE = 0.25, 1 / 6  # share of images of which only small boxes are kept; their longest side
P_INVERTED = 0.5  # share of the other masks that are all but a shape
MAX_BOXES = 3
LENGTH_POWER = 1.5  # of a uniform number that gives a box's length: above 1, short ones are more frequent
P_ALIGNED = 0.4  # share of masks that cover all of the patches that they touch
P_KEEP_COLOR_PATCH = 0.3  # share of images of which all of a color is masked but for a small patch
COLOR_TOLERANCE = 0.15  # in each channel of [-1, 1]
EDGE_WEIGHT = 20  # how many times likelier that patch lies where the color meets another
COLOR_PATCH_SIDE = 1 / 4  # its longest side
P_MIXED_COLORS = 0.8  # share of these masks that keep token patches with another color in them only
MAX_MARGIN = 3  # parts around the color that are masked as well
P_FULL_NOISE, MIN_NOISE = 0.5, 0.1  # share of steps from pure noise, by default; the least noise level of the others
P_TO_X0 = 0.65  # share of steps to x_0


def random_masks(batch: int, side: int) -> Tensor:
    """Parts to generate, bool [B, side^2]: everything, half planes, strokes, one to three boxes, or all but those."""
    masks = torch.stack([_shape(side) for _ in range(batch)])
    masks = torch.where(torch.rand(batch, 1, 1) < P_INVERTED, ~masks, masks)
    keep_boxes = torch.stack([~_boxes(side, max(1, round(KEPT_BOX_SIDE * side))) for _ in range(batch)])
    masks = torch.where(torch.rand(batch, 1, 1) < P_KEEP_BOXES, keep_boxes, masks)
    everything = (torch.rand(batch) < P_EVERYTHING) | ~masks.flatten(1).any(1)
    return (masks | everything[:, None, None]).flatten(1)


def painted_masks(images: Tensor, grid: int) -> Tensor:
    """Masks of images [B, 3, S, S] in [-1, 1] of grid x grid patches: bool [B, side, side], PARTS_PER_PATCH each."""
    batch, side = len(images), PARTS_PER_PATCH * grid
    masks = random_masks(batch, side).view(batch, 1, side, side)
    aligned = F.interpolate(F.max_pool2d(masks.float(), PARTS_PER_PATCH), scale_factor=PARTS_PER_PATCH).bool()
    masks = torch.where(torch.rand(batch, 1, 1, 1) < P_ALIGNED, aligned, masks)[:, 0]
    return torch.where(torch.rand(batch, 1, 1) < P_KEEP_COLOR_PATCH, keep_color_patches(images, side), masks)


def keep_color_patches(images: Tensor, side: int) -> Tensor:
    """All of one color of each image, with some of what is around it, but for a small patch: bool [B, side, side].

    Only that patch shows the color to generate. Most masks cover token patches of this color alone: a network
    would learn to read colors off these, not off patches with several colors. Half of the masks have one more shape.
    """
    pixels = F.interpolate(images, (side, side))
    contrast = F.max_pool2d(pixels, 3, 1, 1) + F.max_pool2d(-pixels, 3, 1, 1)
    places = torch.multinomial(1 + EDGE_WEIGHT * (contrast.amax(1) > COLOR_TOLERANCE).flatten(1).float(), 1)
    colors = pixels.flatten(2).gather(2, places[:, None].expand(-1, pixels.shape[1], -1))
    same = ((pixels.flatten(2) - colors).abs().amax(1) < COLOR_TOLERANCE).view(-1, 1, side, side).float()
    margin = int(torch.randint(MAX_MARGIN + 1, ()))
    masks = F.max_pool2d(same, 2 * margin + 1, 1, margin)[:, 0] > 0
    more = torch.stack([_shape(side) for _ in images]) & (torch.rand(len(images), 1, 1) < 0.5)
    keep = torch.stack([_box_around(*divmod(int(place), side), side) for place in places])
    pure = F.interpolate(-F.max_pool2d(-same, PARTS_PER_PATCH), scale_factor=PARTS_PER_PATCH)[:, 0] == 1
    mixed_only = torch.rand(len(images), 1, 1) < P_MIXED_COLORS
    masks = ((masks | more) & ~keep) | (pure & mixed_only)
    return masks | ~masks.flatten(1).any(1)[:, None, None]


def _box_around(row: int, column: int, side: int) -> Tensor:
    """A small box that holds a place: bool [side, side]."""
    height, width = (_length(max(1, round(COLOR_PATCH_SIDE * side))) for _ in range(2))
    box = torch.zeros(side, side, dtype=torch.bool)
    top, left = (max(0, at - int(torch.randint(n, ()))) for at, n in ((row, height), (column, width)))
    box[top : top + height, left : left + width] = True
    return box


def _shape(side: int) -> Tensor:
    """A half plane, a brush stroke or one to three boxes: bool [side, side]."""
    kind = int(torch.randint(4, ()))
    if kind == 0:  # the rows above a line, or the columns left of one
        along = torch.arange(side)
        along = along[:, None] if torch.rand(()) < 0.5 else along[None]
        return (along < int(torch.randint(1, side, ()))).expand(side, side)
    return brush_stroke(side) if kind == 1 else _boxes(side, side)


def brush_stroke(side: int) -> Tensor:
    """All within half a brush of a line with one bend: bool [side, side]."""
    ends = torch.rand(3, 2) * side
    along = torch.linspace(0, 1, 2 * side)[:, None]
    line = torch.cat([torch.lerp(ends[0], ends[1], along), torch.lerp(ends[1], ends[2], along)])
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    radius = 0.75 + torch.rand(()) * side / 4
    return (torch.cdist(torch.stack([rows, columns], -1).flatten(0, 1), line).amin(1) <= radius).view(side, side)


def _boxes(side: int, longest: int) -> Tensor:
    """One to three boxes: bool [side, side]."""
    boxes = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(int(torch.randint(1, MAX_BOXES + 1, ()))):
        spans = []
        for _ in range(2):
            length = _length(longest)
            start = int(torch.randint(0, side - length + 1, ()))
            spans.append(slice(start, start + length))
        boxes[tuple(spans)] = True
    return boxes


def _length(longest: int) -> int:
    """A box's side, more often a short one, for what is kept may be a narrow strip."""
    return 1 + int(torch.rand(()) ** LENGTH_POWER * (longest - 1))


def random_noise_levels(batch: int, full_noise: float = P_FULL_NOISE) -> tuple[Tensor, Tensor]:
    """Noise levels before and after a step of each row, [B, 1]: 0 <= noise_s < noise_t <= 1, a share of them from 1."""
    full = torch.rand(batch, 1) < full_noise
    noise_t = torch.where(full, 1.0, MIN_NOISE + (1 - MIN_NOISE) * torch.rand(batch, 1))
    to_x0 = torch.rand(batch, 1) < P_TO_X0
    return noise_t, torch.where(to_x0, 0.0, noise_t * torch.rand(batch, 1))
