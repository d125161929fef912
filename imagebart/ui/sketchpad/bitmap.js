// A mask: { width, height, data }, a Uint8Array of a value a pixel, 0 untouched to 255 painted. Nothing here knows the
// page. Every function but `capsule`, `fillRect` and `fillPolygon` gives a new mask and leaves its own alone.

const MAX_DISC = 6; // as in masks.py: larger discs are built from smaller ones

export const blank = (width, height) => ({ width, height, data: new Uint8Array(width * height) });

export const copyOf = (mask) => ({ ...mask, data: mask.data.slice() });

export const same = (a, b) =>
  a === b || (a.width === b.width && a.height === b.height && a.data.every((value, i) => value === b.data[i]));

// A mask as text: values and how often each follows itself; "" where nothing is painted. As bitmap.py.
export const pack = ({ data }) => {
  const runs = [];
  for (let i = 0, start = 0; i < data.length; start = i) {
    while (i < data.length && data[i] === data[start]) i++;
    runs.push(data[start], i - start);
  }
  return runs.length > 2 || runs[0] ? runs.join(" ") : "";
};

export const unpack = (text, width, height) => {
  const mask = blank(width, height);
  const runs = text ? text.split(" ").map(Number) : [];
  for (let i = 0, at = 0; i < runs.length; at += runs[i + 1], i += 2) mask.data.fill(runs[i], at, at + runs[i + 1]);
  return mask;
};

// The painted part, right and bottom exclusive; null where nothing is painted.
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

// The ready masks of masks.py, by the same names.
export const preset = (name, width, height) => {
  const mask = blank(width, height);
  const [x, y] = [Math.floor(width / 4), Math.floor(height / 4)];
  const [middleX, middleY] = [Math.floor(width / 2), Math.floor(height / 2)];
  const boxes = {
    "upper half": [0, 0, width, middleY],
    "lower half": [0, middleY, width, height],
    "left half": [0, 0, middleX, height],
    "right half": [middleX, 0, width, height],
    centre: [x, y, width - x, height - y],
    border: [x, y, width - x, height - y],
    everything: [0, 0, width, height],
  };
  if (!boxes[name]) throw new Error(`there is no ready mask ${name}`);
  fillRect(mask, ...boxes[name], 255);
  return name === "border" ? invert(mask) : mask;
};

export const invert = (mask) => ({ ...mask, data: mask.data.map((value) => 255 - value) });

// Only where something is painted is anything to be done: large masks are slow.
export const grow = (mask, pixels) => within(mask, pixels, (part) => grown(part, pixels));

// Not where the mask meets the picture's edge.
export const shrink = (mask, pixels) => within(mask, 1, (part) => invert(grown(invert(part), pixels)));

// Pixels of [left, right) x [top, bottom), cut at the edges.
export const fillRect = (mask, left, top, right, bottom, value) => {
  const [from, to] = [Math.max(0, left), Math.min(mask.width, right)];
  for (let y = Math.max(0, top); y < Math.min(mask.height, bottom); y++) {
    if (from < to) mask.data.fill(value, y * mask.width + from, y * mask.width + to);
  }
};

// All pixels whose centres are within `radius` of the segment from a to b, and the pixels under its ends: the thinnest
// stroke is not lost. Points are { x, y } in pixels.
export const capsule = (mask, a, b, radius, value) => {
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

// All pixels whose centres lie inside a closed line of points, by the even-odd rule, and those that the line crosses.
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
  points.forEach((a, i) => capsule(mask, a, points[(i + 1) % points.length], 0.5, value));
};

// The painted part with so many pixels around it made into another one of its size; nothing lies elsewhere.
const within = (mask, margin, make) => {
  const box = bounds(mask);
  const result = blank(mask.width, mask.height);
  if (!box) return result;
  const [left, top] = [Math.max(0, box.left - margin), Math.max(0, box.top - margin)];
  const part = blank(Math.min(mask.width, box.right + margin) - left, Math.min(mask.height, box.bottom + margin) - top);
  const row = (y) => (top + y) * mask.width + left;
  for (let y = 0; y < part.height; y++) part.data.set(mask.data.subarray(row(y), row(y) + part.width), y * part.width);
  const { data } = make(part);
  for (let y = 0; y < part.height; y++) result.data.set(data.subarray(y * part.width, (y + 1) * part.width), row(y));
  return result;
};

const grown = (mask, pixels) => {
  let result = mask;
  for (let done = 0; done < pixels; done += MAX_DISC) result = grownOnce(result, Math.min(MAX_DISC, pixels - done));
  return result;
};

// The largest value within a disc around each pixel, row by row of the disc: the outer ones are the shortest.
const grownOnce = ({ width, height, data }, radius) => {
  const result = new Uint8Array(data.length);
  let [wide, reach] = [data, 0];
  for (let up = radius; up >= 0; up--) {
    for (; reach < Math.floor(Math.sqrt(radius * radius - up * up)); reach++) wide = wider(wide, width);
    for (const shift of up ? [up, -up] : [0]) {
      const [from, to] = [Math.max(0, shift), Math.min(height, height + shift)];
      for (let i = from * width, j = (from - shift) * width; i < to * width; i++, j++) {
        if (wide[j] > result[i]) result[i] = wide[j];
      }
    }
  }
  return { width, height, data: result };
};

// The largest value of each pixel and its neighbours to the left and right.
const wider = (data, width) => {
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
