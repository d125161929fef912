// A mask from the pixels of a picture that somebody loads, as masks.py makes it: opacity where there is any
// transparency, else brightness; scaled so that no stroke is lost. Pure functions.

const DARKEST_PAINT = 16; // JPEG masks are not quite black where they should be

// rgba: [height * width * 4] of a picture of width x height; the mask is of `size`. Null where the shapes differ.
export const maskOf = (rgba, width, height, size) => {
  const [scaleX, scaleY] = [size.width / width, size.height / height];
  // One pixel of slack: programs round differently when they scale a picture.
  if (Math.abs(scaleX - scaleY) * Math.min(width, height) > Math.max(1, scaleX)) return null;
  const paint = paintOf(rgba, width * height);
  const [rows, columns] = [spans(height, size.height), spans(width, size.width)];
  const data = new Uint8Array(size.width * size.height);
  const narrow = new Uint8Array(height * size.width);
  for (let y = 0; y < height; y++) {
    columns.forEach(([low, high], x) => {
      narrow[y * size.width + x] = most(paint, y * width + low, y * width + high, 1);
    });
  }
  rows.forEach(([low, high], y) => {
    for (let x = 0; x < size.width; x++) {
      data[y * size.width + x] = most(narrow, low * size.width + x, high * size.width, size.width);
    }
  });
  return { ...size, data };
};

const most = (values, from, to, step) => {
  let result = 0;
  for (let i = from; i < to; i += step) if (values[i] > result) result = values[i];
  return result;
};

const paintOf = (rgba, count) => {
  let opaque = true;
  for (let i = 3; i < rgba.length && opaque; i += 4) opaque = rgba[i] === 255;
  const paint = new Uint8Array(count);
  for (let i = 0, j = 0; i < count; i++, j += 4) {
    // Pillow's weights.
    const grey = (rgba[j] * 19595 + rgba[j + 1] * 38470 + rgba[j + 2] * 7471 + 0x8000) >> 16;
    paint[i] = opaque ? (grey < DARKEST_PAINT ? 0 : grey) : rgba[j + 3];
  }
  return paint;
};

// The pixels (first, one after the last) that each of `cells` equal cells overlaps.
const spans = (length, cells) =>
  Array.from({ length: cells }, (_, i) => [Math.floor((i * length) / cells), Math.ceil(((i + 1) * length) / cells)]);
