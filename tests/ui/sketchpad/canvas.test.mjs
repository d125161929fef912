// The canvas: pointers, keys, the view; masks against slow, plain ways to do the same; the state with undo and redo.
import assert from "node:assert/strict";
import test from "node:test";
import { commandOf, Gestures } from "../../../imagebart/ui/sketchpad/input.js";
import * as masks from "../../../imagebart/ui/sketchpad/mask.js";
import { State } from "../../../imagebart/ui/sketchpad/state.js";
import { fit, pan, sliderPosition, toImage, toScreen, zoom } from "../../../imagebart/ui/sketchpad/view.js";

// Pointers and keys.

const listener = () => {
  const calls = [];
  const target = {};
  for (const name of ["begin", "extend", "end", "abort", "hover", "pinch"]) target[name] = (value) => calls.push([name, value]);
  return { calls, names: () => calls.map(([name]) => name), gestures: new Gestures(target) };
};

test("one pointer paints where it is pressed, until it is lifted", () => {
  const { names, calls, gestures } = listener();
  gestures.move(1, [{ x: 1, y: 1 }]);
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.move(1, [{ x: 1, y: 1 }, { x: 2, y: 2 }]);
  gestures.lift(1);
  assert.deepEqual(names(), ["hover", "begin", "extend", "extend", "end"]);
  assert.deepEqual(calls[3][1], { x: 2, y: 2 });
});

test("a second pointer aborts the stroke and pans; nothing paints until both are up", () => {
  const { names, calls, gestures } = listener();
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.press({ id: 2, x: 10, y: 0 }, "paint");
  gestures.move(2, [{ x: 20, y: 0 }]);
  gestures.lift(2);
  gestures.move(1, [{ x: 3, y: 4 }]);
  gestures.lift(1);
  assert.deepEqual(names(), ["begin", "abort", "pinch", "pinch"]);
  assert.deepEqual(calls[2][1], { dx: 5, dy: 0, factor: 2, at: { x: 5, y: 0 } });
  assert.deepEqual(calls[3][1], { dx: 3, dy: 4, factor: 1, at: { x: 0, y: 0 } });
  gestures.press({ id: 3, x: 0, y: 0 }, "paint");
  assert.equal(names().at(-1), "begin");
});

test("a stroke is aborted when the system cancels it; one that ended before its pointer is lifted goes no further", () => {
  const { names, gestures } = listener();
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.lift(1, true);
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.finish();
  gestures.move(1, [{ x: 5, y: 5 }]);
  gestures.lift(1);
  gestures.finish();
  gestures.press({ id: 2, x: 0, y: 0 }, "paint");
  assert.deepEqual(names(), ["begin", "abort", "begin", "end", "begin"]);
});

test("keys do what the list says, but not while somebody types", () => {
  const key = (name, more = {}) => ({ key: name, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });
  assert.equal(commandOf(key("b")), "brush");
  assert.equal(commandOf(key("z", { ctrlKey: true })), "undo");
  assert.equal(commandOf(key("Z", { metaKey: true, shiftKey: true })), "redo");
  assert.equal(commandOf(key("?", { shiftKey: true })), "help");
  assert.equal(commandOf(key("b"), true), null);
  assert.equal(commandOf(key("z", { ctrlKey: true }), true), null);
  assert.equal(commandOf(key("Escape"), true), "cancel");
  assert.equal(commandOf(key("c", { ctrlKey: true })), null);
  assert.equal(commandOf(key("toString")), null);
});

// The view.

const size = { width: 40, height: 30 };
const frame = { width: 416, height: 616 };

test("zooming leaves what lies under the pointer where it is, and never leaves the frame", () => {
  const at = { x: 200, y: 300 };
  let view = fit(size, frame);
  assert.deepEqual(view, { scale: 10, x: 8, y: 158 });
  assert.deepEqual(toImage(view, toScreen(view, { x: 3, y: 4 })), { x: 3, y: 4 });
  const under = toImage(view, at);
  view = zoom(view, at, 2, size, frame);
  assert.equal(view.scale, 20);
  assert.ok(Math.abs(toImage(view, at).x - under.x) < 1e-9);
  view = pan(view, 1e6, -1e6, size, frame);
  assert.equal(view.x, 8);
  assert.deepEqual(zoom(view, at, 1e-6, size, frame), fit(size, frame));
  assert.equal(zoom(view, at, 1e6, size, frame).scale, 40);
});

test("the slider's knob is all in the frame, and its line where before and after meet", () => {
  const whole = fit(size, frame);
  for (const view of [whole, zoom(whole, { x: 300, y: 200 }, 3, size, frame)]) {
    for (const share of [0, 0.01, 0.5, 1]) {
      const { left, top, height, knob } = sliderPosition(view, size, frame, share);
      assert.ok(Math.abs(toImage(view, { x: left, y: 0 }).x - 40 * share) < 1e-9);
      assert.ok(left + knob - 18 >= 0 && left + knob + 18 <= frame.width && top >= 0 && top + height <= frame.height);
    }
  }
  assert.equal(sliderPosition(whole, size, frame, 0.5).knob, 0);
});

// Masks.

const randomNumbers = (seed) => () => {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return seed / 2147483648;
};

const cells = (mask) => [...mask.data].map((value, i) => [i % mask.width, Math.floor(i / mask.width), value]);

test("a stroke paints all pixels whose centers are near it, and those under its ends", () => {
  const draw = randomNumbers(1);
  for (let trial = 0; trial < 40; trial++) {
    const mask = masks.blank({ width: 23, height: 17 });
    const point = () => ({ x: draw() * 30 - 3, y: draw() * 24 - 3 });
    const [a, b, radius] = [point(), point(), draw() * 5];
    masks.fillCapsule(mask, a, b, radius, 255);
    for (const [x, y, value] of cells(mask)) {
      let distance = Infinity; // from the nearest of many points
      for (let i = 0; i <= 2000; i++) {
        const [px, py] = [a.x + ((b.x - a.x) * i) / 2000, a.y + ((b.y - a.y) * i) / 2000];
        distance = Math.min(distance, Math.hypot(x + 0.5 - px, y + 0.5 - py));
      }
      const under = [a, b].some((end) => Math.floor(end.x) === x && Math.floor(end.y) === y);
      if (under || distance <= radius) assert.equal(value, 255);
      else if (distance ** 2 > radius ** 2 + 1e-4) assert.equal(value, 0); // the points are 0.02 apart
    }
  }
});

test("a polygon is filled where its center lies inside, and concave ones stay hollow", () => {
  const mask = masks.blank({ width: 20, height: 20 });
  const u = [[2, 2], [6, 2], [6, 14], [14, 14], [14, 2], [18, 2], [18, 18], [2, 18]].map(([x, y]) => ({ x, y }));
  masks.fillPolygon(mask, u, 255);
  const at = [[4, 10], [10, 16], [10, 8], [0, 0]].map(([x, y]) => mask.data[y * 20 + x]);
  assert.deepEqual(at, [255, 255, 0, 0]);
});

test("the wand selects what is connected and of one color, as spreading step by step finds it", () => {
  const draw = randomNumbers(3);
  for (let trial = 0; trial < 30; trial++) {
    const [width, height, tolerance] = [11, 9, 10];
    const pixels = new Uint8ClampedArray(4 * width * height).map(() => 100 + Math.floor(draw() * 2) * 9 + Math.floor(draw() * 1.4) * 9);
    const at = { x: Math.floor(draw() * width), y: Math.floor(draw() * height) };
    const alike = (x, y) => [0, 1, 2].every((channel) =>
      Math.abs(pixels[4 * (y * width + x) + channel] - pixels[4 * (at.y * width + at.x) + channel]) <= tolerance);
    const found = new Set([`${at.x} ${at.y}`]);
    for (const place of found) { // also what is added meanwhile
      const [x, y] = place.split(" ").map(Number);
      for (const [u, v] of [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]]) {
        if (u >= 0 && v >= 0 && u < width && v < height && alike(u, v)) found.add(`${u} ${v}`);
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
  Object.assign(mask.data, { [2 * 9 + 3]: 1, [5 * 9 + 8]: 255 });
  assert.deepEqual(masks.bounds(mask), { left: 3, top: 2, right: 9, bottom: 6 });
});

test("the lines around a mask are all edges between what is painted and what is not, each once", () => {
  const draw = randomNumbers(6);
  for (let trial = 0; trial < 20; trial++) {
    const mask = masks.blank({ width: 9, height: 7 });
    mask.data.forEach((_, i) => (mask.data[i] = draw() < 0.4 ? 200 : 0));
    const edges = new Set();
    for (const [x, y] of cells(mask).filter(([, , value]) => value)) {
      const sides = [[x, y, x + 1, y], [x, y + 1, x + 1, y + 1], [x, y, x, y + 1], [x + 1, y, x + 1, y + 1]];
      for (const side of sides.map(String)) if (!edges.delete(side)) edges.add(side); // twice: between two of them
    }
    assert.deepEqual(masks.contour(mask).map(String).sort(), [...edges].sort());
  }
  assert.deepEqual(masks.contour(masks.blank({ width: 4, height: 3 })), []);
});

// The state.

const SIZE = { width: 12, height: 8 };
const preset = (name) => masks.preset(name, SIZE);
const image = (path, { width, height } = SIZE) => ({ path, width, height, mask_size: { width, height } });

test("every change is passed on at once, with a version of its own; another path of the image is none", () => {
  const seen = [];
  const state = new State(() => seen.push([state.version, state.mask]));
  state.open(image("a"));
  for (const name of ["upper half", "center", "border"]) state.paint(preset(name));
  assert.deepEqual(seen.map(([version]) => version), [1, 2, 3, 4]);
  assert.ok(masks.equal(seen[3][1], preset("border")));
  state.paint(preset("border"));
  state.rename("a", image("b"));
  assert.deepEqual([state.version, state.image.path], [4, "b"]);
  assert.ok(masks.equal(state.mask, preset("border")));
  state.undo();
  assert.equal(state.image.path, "b");
});

test("whether nobody painted a mask belongs to its entry", () => {
  const state = new State(() => {});
  const steps = [
    () => state.open(image("a"), preset("center")),
    () => state.paint(preset("border")),
    () => state.paint(preset("upper half"), true),
    () => state.open(image("b"), preset("center"), null, false),
    () => {
      state.beginStroke().data[0] = 9;
      state.endStroke();
    },
  ];
  const seen = steps.map((act) => (act(), state.movable));
  assert.deepEqual(seen, [true, false, true, false, false]);
  for (const before of seen.reverse().slice(1)) {
    state.undo();
    assert.equal(state.movable, before);
  }
});

test("a stroke apart from a mask stands alone; one that touches it, or takes away, goes on with it", () => {
  const mask = (...painted) => ({ width: 4, height: 3, data: Uint8Array.from({ length: 12 }, (_, i) => 9 * painted.includes(i)) });
  for (const [before, after, expected] of [[[4], [4, 11], [11]], [[3], [3, 4], [4]], [[4], [4, 8], [4, 8]], [[1, 2], [1], [1]]]) {
    assert.deepEqual(masks.addedApart(mask(...before), mask(...after)), mask(...expected));
  }
});

test("the oldest entries are dropped first, by their bytes; words cost none", () => {
  let text = null;
  const state = new State(() => {}, () => {}, { read: () => text, write: () => assert.fail("there is no prompt") });
  state.maxBytes = 1000;
  for (let i = 0; i < 50; i++) state.open(image(i, { width: 10, height: 10 }));
  state.undo();
  state.redo();
  assert.deepEqual(state.past.map((entry) => entry.image.path), Array.from({ length: 10 }, (_, i) => 39 + i));
  for (let i = 0; i <= 50; i++) {
    text = `words ${i}`;
    state.noteWords();
  }
  assert.equal(state.past.length, 59);
});

test("a stroke ends before anything else is done, and belongs to the image on which it began", () => {
  const state = new State(() => {}, () => state.stroke && state.endStroke());
  for (const [act, kept] of [
    [() => state.open(image("b")), () => state.past.at(-1)],
    [() => state.undo(), () => state.future.at(-1)],
    [() => state.paint(masks.blank(SIZE)), () => state.past.at(-1)],
  ]) {
    state.open(image("a"));
    const { version } = state;
    state.beginStroke().data[5] = 255;
    act();
    assert.equal(state.stroke, null);
    assert.equal(state.version, version + 2, "the stroke, and what was done");
    assert.deepEqual([kept().image.path, kept().mask.data[5], state.mask.data[5]], ["a", 255, 0]);
  }
});

test("what arrives during a stroke comes at its end, in its order", () => {
  const state = new State(() => {});
  const seen = [];
  state.open(image("a"));
  state.onArrival(() => seen.push("at once"));
  state.beginStroke().data[3] = 255;
  state.onArrival(() => seen.push(state.mask.data[3]));
  state.onArrival(() => seen.push("second"));
  assert.deepEqual(seen, ["at once"]);
  state.endStroke();
  assert.deepEqual(seen, ["at once", 255, "second"]);
  state.beginStroke().data[4] = 255;
  state.onArrival(() => seen.push(state.mask.data[4]));
  state.endStroke(false);
  assert.deepEqual([state.mask.data[4], seen.at(-1)], [0, 0], "dropped");
});

test("images, masks and words are undone and redone in the order in which they were made", () => {
  const field = { text: "", read: () => field.text, write: (words) => (field.text = words) };
  const state = new State(() => {}, () => {}, field);
  const now = () => [state.image.path, state.mask.data.indexOf(255), field.text];
  state.open(image("a"), null, "of the example");
  const seen = [now()];
  const step = (act) => (act(), state.noteWords(), seen.push(now()));
  const { version } = state;
  step(() => (field.text = "typed")); // a pause
  assert.equal(state.version, version, "answers about the image still count");
  field.text = "typed and painted";
  seen.push(now());
  step(() => state.paint(preset("center")));
  step(() => state.changeWords("described"));
  step(() => state.paint(preset("border")));
  step(() => state.open(image("b"), preset("center"), "of another"));
  assert.equal(new Set(seen.map(String)).size, seen.length);
  field.text = "not yet a step";
  seen.push(now());
  for (const before of [...seen].reverse().slice(1)) {
    assert.ok(state.undo());
    assert.deepEqual(now(), before);
  }
  assert.equal(state.undo(), false);
  for (const after of seen.slice(1)) {
    assert.ok(state.redo());
    assert.deepEqual(now(), after);
  }
  assert.equal(state.redo(), false);
  state.undo();
  state.undo();
  step(() => state.paint(preset("left half")));
  assert.equal(state.redo(), false, "what was undone is gone");
  assert.ok(state.undo());
  assert.deepEqual(now(), seen.at(-4));
});
