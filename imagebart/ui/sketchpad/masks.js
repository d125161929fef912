// Masks made without painting, as the buttons and keys do it.
import { blank, bounds, grow, invert, preset, shrink } from "./bitmap.js";

const MOVE = 1 / 32; // growing and shrinking move a mask's edge by this share of its longer side: half a token of 16 a side

const move = ({ width, height }) => Math.max(1, Math.round(Math.max(width, height) * MOVE));

export const MADE = {
  invert,
  grow: (mask) => grow(mask, move(mask)),
  shrink: (mask) => shrink(mask, move(mask)),
  clear: ({ width, height }) => blank(width, height),
};

// In the order of masks.py.
export const READY = ["upper half", "lower half", "left half", "right half", "centre", "border", "everything"];

export const ready = (name, { width, height }) => preset(name, width, height);

// What a mask that has to be painted for `action` lacks; "" where nothing is missing.
export const missing = (action, mask) =>
  ["grow", "shrink"].includes(action) && !bounds(mask) ? "Nothing is painted yet." : "";
