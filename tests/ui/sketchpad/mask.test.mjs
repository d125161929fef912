// Masks: against slow, plain ways to do the same.
import assert from "node:assert/strict";
import test from "node:test";
import * as masks from "../../../imagebart/ui/sketchpad/mask.js";

const randomNumbers = (seed) => () => {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return seed / 2147483648;
};

const cells = (mask) => [...mask.data].map((value, i) => [i % mask.width, Math.floor(i / mask.width), value]);

test("a stroke paints all pixels whose centres are near it, and those under its ends", () => {
  const draw = randomNumbers(1);
  for (let trial = 0; trial < 40; trial++) {
    const mask = masks.blank({ width: 23, height: 17 });
    const point = () => ({ x: draw() * 30 - 3, y: draw() * 24 - 3 });
    const [a, b, radius] = [point(), point(), draw() * 5];
    masks.fillCapsule(mask, a, b, radius, 255);
    for (const [x, y, value] of cells(mask)) {
      let near = false;
      for (let i = 0; i <= 2000 && !near; i++) {
        const [px, py] = [a.x + ((b.x - a.x) * i) / 2000, a.y + ((b.y - a.y) * i) / 2000];
        near = Math.hypot(x + 0.5 - px, y + 0.5 - py) <= radius - 0.02;
      }
      const under = [a, b].some((end) => Math.floor(end.x) === x && Math.floor(end.y) === y);
      const length = Math.hypot(b.x - a.x, b.y - a.y);
      const along = Math.min(1, Math.max(0, ((x + 0.5 - a.x) * (b.x - a.x) + (y + 0.5 - a.y) * (b.y - a.y)) / length ** 2));
      const off = Math.hypot(x + 0.5 - a.x - along * (b.x - a.x), y + 0.5 - a.y - along * (b.y - a.y));
      if (near || under) assert.equal(value, 255);
      if (off > radius && !under) assert.equal(value, 0);
    }
  }
});

test("a polygon is filled where its centre lies inside, and concave ones stay hollow", () => {
  const mask = masks.blank({ width: 20, height: 20 });
  const u = [[2, 2], [6, 2], [6, 14], [14, 14], [14, 2], [18, 2], [18, 18], [2, 18]].map(([x, y]) => ({ x, y }));
  masks.fillPolygon(mask, u, 255);
  assert.equal(mask.data[10 * 20 + 4], 255);
  assert.equal(mask.data[16 * 20 + 10], 255);
  assert.equal(mask.data[8 * 20 + 10], 0);
  assert.equal(mask.data[0], 0);
});

test("the wand selects what is connected and of one color, as spreading step by step finds it", () => {
  const draw = randomNumbers(3);
  for (let trial = 0; trial < 30; trial++) {
    const [width, height, tolerance] = [11, 9, 10];
    const pixels = new Uint8ClampedArray(4 * width * height).map(() => 100 + Math.floor(draw() * 2) * 9 + Math.floor(draw() * 1.4) * 9);
    const at = { x: Math.floor(draw() * width), y: Math.floor(draw() * height) };
    const alike = (x, y) => [0, 1, 2].every((channel) =>
      Math.abs(pixels[4 * (y * width + x) + channel] - pixels[4 * (at.y * width + at.x) + channel]) <= tolerance);
    let found = new Set([`${at.x} ${at.y}`]);
    for (let before = 0; found.size > before;) {
      before = found.size;
      for (const [x, y] of [...found].map((place) => place.split(" ").map(Number))) {
        for (const [u, v] of [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]]) {
          if (u >= 0 && v >= 0 && u < width && v < height && alike(u, v)) found.add(`${u} ${v}`);
        }
      }
    }
    const mask = masks.floodFill(pixels, { width, height }, at, tolerance);
    for (const [x, y, value] of cells(mask)) assert.equal(value, found.has(`${x} ${y}`) ? 255 : 0);
    const half = masks.fillSelection({ ...mask, data: mask.data.map(() => 77) }, mask, 128);
    for (const [x, y, value] of cells(half)) assert.equal(value, found.has(`${x} ${y}`) ? 128 : 77);
  }
});

test("bounds hold all that is painted", () => {
  const mask = masks.blank({ width: 9, height: 7 });
  assert.equal(masks.bounds(mask), null);
  mask.data[2 * 9 + 3] = 1;
  mask.data[5 * 9 + 8] = 255;
  assert.deepEqual(masks.bounds(mask), { left: 3, top: 2, right: 9, bottom: 6 });
});

test("the lines around a mask are all edges between what is painted and what is not, each once", () => {
  const draw = randomNumbers(6);
  for (let trial = 0; trial < 20; trial++) {
    const mask = masks.blank({ width: 9, height: 7 });
    mask.data.forEach((_, i) => (mask.data[i] = draw() < 0.4 ? 200 : 0));
    const found = masks.contour(mask).flatMap(([x1, y1, x2, y2]) => {
      const length = Math.max(x2 - x1, y2 - y1);
      return Array.from({ length }, (_, i) => (y1 === y2 ? `${x1 + i} ${y1} right` : `${x1} ${y1 + i} down`));
    });
    const painted = new Set(cells(mask).filter(([, , value]) => value).map(([x, y]) => `${x} ${y}`));
    const edges = [...painted].map((cell) => cell.split(" ").map(Number)).flatMap(([x, y]) => [
      ...(painted.has(`${x} ${y - 1}`) ? [] : [`${x} ${y} right`]),
      ...(painted.has(`${x} ${y + 1}`) ? [] : [`${x} ${y + 1} right`]),
      ...(painted.has(`${x - 1} ${y}`) ? [] : [`${x} ${y} down`]),
      ...(painted.has(`${x + 1} ${y}`) ? [] : [`${x + 1} ${y} down`]),
    ]);
    assert.deepEqual(found.sort(), edges.sort());
  }
  assert.deepEqual(masks.contour(masks.preset("everything", { width: 4, height: 3 })).length, 14);
  assert.deepEqual(masks.contour(masks.blank({ width: 4, height: 3 })), []);
});
