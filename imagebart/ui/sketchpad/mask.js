// Masks: { width, height, data }, a Uint8Array of one value a pixel: its strength, how much of what is there is forgotten,
// from 0 (keep) to 255 (regenerate from noise), as in imaging/masks.py. Drawing, preset masks, growing and shrinking, and
// the form in which the server gets one. Pure functions: all but `fillCapsule`, `fillRect` and `fillPolygon`, which draw on
// their mask, return a new one.

const MAX_DISC = 6; // radius in pixels: a larger disc is several smaller ones, one after the other
const EDGE_STEP = 1 / 32; // by which Grow and Shrink move the edge, over the longer side: half a token of a 16 x 16 grid

export const blank = ({ width, height }) => ({ width, height, data: new Uint8Array(width * height) });

export const copy = (mask) => ({ ...mask, data: mask.data.slice() });

export const equal = (a, b) =>
  a === b || (a.width === b.width && a.height === b.height && a.data.every((value, i) => value === b.data[i]));

// Run-length encoding: pairs of a value and its count; "" for an empty mask. As `pack` in Python.
export const pack = ({ data }) => {
  const runs = [];
  for (let i = 0, start = 0; i < data.length; start = i) {
    while (i < data.length && data[i] === data[start]) i++;
    runs.push(data[start], i - start);
  }
  return runs.length > 2 || runs[0] ? runs.join(" ") : "";
};

export const unpack = (text, size) => {
  const mask = blank(size);
  const runs = text ? text.split(" ").map(Number) : [];
  for (let i = 0, at = 0; i < runs.length; at += runs[i + 1], i += 2) mask.data.fill(runs[i], at, at + runs[i + 1]);
  return mask;
};

// The box around all painted pixels, right and bottom exclusive; null for an empty mask.
export const bounds = ({ width, height, data }) => {
  let [left, top, right, bottom] = [width, -1, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0, i = y * width; x < width; x++, i++) {
      if (!data[i]) continue;
      if (top < 0) top = y;
      bottom = y + 1;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
    }
  }
  return top < 0 ? null : { left, top, right, bottom };
};

// The sides of pixels around what is painted, [x1, y1, x2, y2] each.
export const contour = (mask) => {
  const { width, height, data } = mask;
  const painted = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] > 0;
  const { left, top, right, bottom } = bounds(mask) ?? {};
  const lines = [];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      if (painted(x, y) !== painted(x, y - 1)) lines.push([x, y, x + 1, y]);
      if (painted(x, y) !== painted(x - 1, y)) lines.push([x, y, x, y + 1]);
    }
  }
  return lines;
};

// Pixels of [left, right) x [top, bottom), clipped to the mask.
export const fillRect = (mask, left, top, right, bottom, value) => {
  const [from, to] = [Math.max(0, left), Math.min(mask.width, right)];
  for (let y = Math.max(0, top); y < Math.min(mask.height, bottom); y++) {
    if (from < to) mask.data.fill(value, y * mask.width + from, y * mask.width + to);
  }
};

// All pixels whose centers are within `radius` of the segment from a to b, and the pixels under its ends, so that the
// thinnest stroke is not lost. Points are { x, y } in pixels.
export const fillCapsule = (mask, a, b, radius, value) => {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length = dx * dx + dy * dy;
  const reach = radius + 1;
  const [left, right] = [Math.floor(Math.min(a.x, b.x) - reach), Math.ceil(Math.max(a.x, b.x) + reach)];
  const [top, bottom] = [Math.floor(Math.min(a.y, b.y) - reach), Math.ceil(Math.max(a.y, b.y) + reach)];
  for (let y = Math.max(0, top); y < Math.min(mask.height, bottom); y++) {
    for (let x = Math.max(0, left); x < Math.min(mask.width, right); x++) {
      const [px, py] = [x + 0.5 - a.x, y + 0.5 - a.y];
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const [ox, oy] = [px - along * dx, py - along * dy];
      if (ox * ox + oy * oy <= radius * radius) mask.data[y * mask.width + x] = value;
    }
  }
  for (const { x, y } of [a, b]) fillRect(mask, Math.floor(x), Math.floor(y), Math.floor(x) + 1, Math.floor(y) + 1, value);
};

// All pixels whose centers lie in a closed polygon, by the even-odd rule, and those that its outline crosses.
export const fillPolygon = (mask, points, value) => {
  for (let y = 0; y < mask.height; y++) {
    const crossings = [];
    points.forEach((a, i) => {
      const b = points[(i + 1) % points.length];
      if (a.y <= y + 0.5 !== b.y <= y + 0.5) crossings.push(a.x + ((y + 0.5 - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    crossings.sort((p, q) => p - q);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      fillRect(mask, Math.ceil(crossings[i] - 0.5), y, Math.floor(crossings[i + 1] - 0.5) + 1, y + 1, value);
    }
  }
  points.forEach((a, i) => fillCapsule(mask, a, points[(i + 1) % points.length], 0.5, value));
};

// The pixels that are connected to `at` ({ x, y }) and of nearly its color: 255 where no channel differs by more than
// `tolerance`. pixels: rgba [height * width * 4].
export const floodFill = (pixels, { width, height }, at, tolerance) => {
  const mask = blank({ width, height });
  const start = at.y * width + at.x;
  const [red, green, blue] = pixels.subarray(4 * start);
  const near = (value, wanted) => value - wanted <= tolerance && wanted - value <= tolerance;
  const sameColor = (i) => near(pixels[4 * i], red) && near(pixels[4 * i + 1], green) && near(pixels[4 * i + 2], blue);
  const waiting = new Int32Array(width * height);
  let count = 0;
  const visit = (i) => {
    if (mask.data[i] || !sameColor(i)) return;
    mask.data[i] = 255;
    waiting[count++] = i;
  };
  visit(start);
  while (count) {
    const i = waiting[--count];
    const x = i % width;
    if (x > 0) visit(i - 1);
    if (x < width - 1) visit(i + 1);
    if (i >= width) visit(i - width);
    if (i < mask.data.length - width) visit(i + width);
  }
  return mask;
};

// A mask with another value where something is selected.
export const fillSelection = (mask, selection, value) =>
  ({ ...mask, data: mask.data.map((before, i) => (selection.data[i] ? value : before)) });

// As PRESETS in imaging/masks.py.
export const preset = (name, { width, height }, value = 255) => {
  const [x, y, middleX, middleY] = [width / 4, height / 4, width / 2, height / 2].map(Math.floor);
  const box = {
    "upper half": [0, 0, width, middleY],
    "lower half": [0, middleY, width, height],
    "left half": [0, 0, middleX, height],
    "right half": [middleX, 0, width, height],
    center: [x, y, width - x, height - y],
    border: [x, y, width - x, height - y], // what it keeps
    everything: [0, 0, width, height],
  }[name];
  const mask = blank({ width, height });
  if (name === "border") mask.data.fill(value);
  fillRect(mask, ...box, name === "border" ? 0 : value);
  return mask;
};

// What was added to a mask, alone, where that touches nothing that was painted before; else all.
export const addedApart = (before, after) => {
  const added = after.data.map((value, i) => (before.data[i] ? 0 : value));
  const touches = grow(before, 1).data.some((value, i) => value && added[i]);
  return touches || !added.some(Boolean) ? after : { ...after, data: added };
};

export const invert = (mask) => ({ ...mask, data: mask.data.map((value) => 255 - value) });

// Only the painted part is worked on: large masks are slow.
export const grow = (mask, pixels) => onPaintedPart(mask, pixels, (part) => dilate(part, pixels));

// The mask's edge stays where it is the image's.
export const shrink = (mask, pixels) => onPaintedPart(mask, 1, (part) => invert(dilate(invert(part), pixels)));

const edgeStep = ({ width, height }) => Math.max(1, Math.round(Math.max(width, height) * EDGE_STEP));

// From a mask to another one, by the names of the buttons.
export const MASK_COMMANDS = {
  invert,
  grow: (mask) => grow(mask, edgeStep(mask)),
  shrink: (mask) => shrink(mask, edgeStep(mask)),
  clear: blank,
};

// `change` applied to the painted part with a margin in pixels; the rest of the result is 0.
const onPaintedPart = (mask, margin, change) => {
  const box = bounds(mask);
  const result = blank(mask);
  if (!box) return result;
  const [left, top] = [Math.max(0, box.left - margin), Math.max(0, box.top - margin)];
  const [right, bottom] = [Math.min(mask.width, box.right + margin), Math.min(mask.height, box.bottom + margin)];
  const part = blank({ width: right - left, height: bottom - top });
  const row = (y) => (top + y) * mask.width + left;
  for (let y = 0; y < part.height; y++) part.data.set(mask.data.subarray(row(y), row(y) + part.width), y * part.width);
  const { data } = change(part);
  for (let y = 0; y < part.height; y++) result.data.set(data.subarray(y * part.width, (y + 1) * part.width), row(y));
  return result;
};

const dilate = (mask, pixels) => {
  let result = mask;
  for (let done = 0; done < pixels; done += MAX_DISC) result = dilateOnce(result, Math.min(MAX_DISC, pixels - done));
  return result;
};

// The largest value in a disc around each pixel, row by row of the disc: the outer ones are the shortest.
const dilateOnce = ({ width, height, data }, radius) => {
  const result = new Uint8Array(data.length);
  let [wide, reach] = [data, 0];
  for (let up = radius; up >= 0; up--) {
    for (; reach < Math.floor(Math.sqrt(radius * radius - up * up)); reach++) wide = widen(wide, width);
    for (const shift of up ? [up, -up] : [0]) {
      const [from, to] = [Math.max(0, shift), Math.min(height, height + shift)];
      for (let i = from * width, j = (from - shift) * width; i < to * width; i++, j++) {
        if (wide[j] > result[i]) result[i] = wide[j];
      }
    }
  }
  return { width, height, data: result };
};

// The largest value of each pixel and its neighbors to the left and right.
const widen = (data, width) => {
  const result = new Uint8Array(data.length);
  for (let start = 0; start < data.length; start += width) {
    for (let i = start, last = start + width - 1; i <= last; i++) {
      let most = data[i];
      if (i > start && data[i - 1] > most) most = data[i - 1];
      if (i < last && data[i + 1] > most) most = data[i + 1];
      result[i] = most;
    }
  }
  return result;
};
