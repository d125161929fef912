// Pointers, keys and the view.
import assert from "node:assert/strict";
import test from "node:test";
import { commandOf, Gestures } from "../../../imagebart/ui/sketchpad/input.js";
import { fit, pan, sliderPosition, toImage, toScreen, zoom } from "../../../imagebart/ui/sketchpad/view.js";

const listener = () => {
  const calls = [];
  const target = {};
  for (const name of ["begin", "extend", "end", "abort", "hover", "pinch"]) target[name] = (value) => calls.push([name, value]);
  return { calls, names: () => calls.map(([name]) => name), gestures: new Gestures(target) };
};

test("one pointer paints", () => {
  const { names, calls, gestures } = listener();
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.move(1, [{ x: 1, y: 1 }, { x: 2, y: 2 }]);
  gestures.lift(1);
  assert.deepEqual(names(), ["begin", "extend", "extend", "end"]);
  assert.deepEqual(calls[2][1], { x: 2, y: 2 });
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

test("a stroke that the system cancels is aborted", () => {
  const { names, gestures } = listener();
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.lift(1, true);
  assert.deepEqual(names(), ["begin", "abort"]);
});

test("a stroke can end before its pointer is lifted, and then goes no further", () => {
  const { names, gestures } = listener();
  gestures.press({ id: 1, x: 0, y: 0 }, "paint");
  gestures.finish();
  gestures.move(1, [{ x: 5, y: 5 }]);
  gestures.lift(1);
  gestures.finish();
  assert.deepEqual(names(), ["begin", "end"]);
  gestures.press({ id: 2, x: 0, y: 0 }, "paint");
  assert.equal(names().at(-1), "begin");
});

test("a pointer that is not pressed hovers", () => {
  const { names, gestures } = listener();
  gestures.move(9, [{ x: 1, y: 1 }]);
  assert.deepEqual(names(), ["hover"]);
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

const size = { width: 40, height: 30 };
const frame = { width: 416, height: 616 };

test("the whole image lies in the middle of its frame", () => {
  const view = fit(size, frame);
  assert.deepEqual(view, { scale: 10, x: 8, y: 158 });
  assert.deepEqual(toImage(view, toScreen(view, { x: 3, y: 4 })), { x: 3, y: 4 });
});

test("zooming leaves what lies under the pointer where it is, and never leaves the frame", () => {
  const at = { x: 200, y: 300 };
  let view = fit(size, frame);
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
  const [size, frame] = [{ width: 40, height: 30 }, { width: 416, height: 616 }];
  for (const view of [fit(size, frame), zoom(fit(size, frame), { x: 300, y: 200 }, 3, size, frame)]) {
    for (const share of [0, 0.01, 0.5, 1]) {
      const { left, top, height, knob } = sliderPosition(view, size, frame, share);
      assert.ok(Math.abs(toImage(view, { x: left, y: 0 }).x - 40 * share) < 1e-9);
      assert.ok(left + knob - 18 >= 0 && left + knob + 18 <= frame.width);
      assert.ok(top >= 0 && top + height <= frame.height);
    }
  }
  assert.equal(sliderPosition(fit(size, frame), size, frame, 0.5).knob, 0);
});
