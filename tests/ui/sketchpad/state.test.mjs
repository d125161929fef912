// The state: every change has a version of its own and is passed on at once; undo and redo against a plain list.
import assert from "node:assert/strict";
import test from "node:test";
import { blank, equal, preset } from "../../../imagebart/ui/sketchpad/mask.js";
import { State } from "../../../imagebart/ui/sketchpad/state.js";

const image = (path, width = 12, height = 8) => ({ path, width, height, mask_size: { width, height } });

test("every change is passed on at once, with a version of its own", () => {
  const seen = [];
  const state = new State(() => seen.push([state.version, state.mask]));
  state.open(image("a"));
  for (const name of ["upper half", "centre", "border"]) state.paint(preset(name, { width: 12, height: 8 }));
  assert.deepEqual(seen.map(([version]) => version), [1, 2, 3, 4]);
  assert.ok(equal(seen[3][1], preset("border", { width: 12, height: 8 })));
  state.paint(preset("border", { width: 12, height: 8 }));
  assert.equal(state.version, 4, "the same mask is no change");
});

test("whether nobody painted a mask belongs to its entry", () => {
  const state = new State(() => {});
  const seen = [state.movable];
  const step = (change) => {
    change();
    seen.push(state.movable);
  };
  step(() => state.open(image("a"), preset("centre", { width: 12, height: 8 })));
  step(() => state.paint(preset("border", { width: 12, height: 8 })));
  step(() => state.paint(preset("upper half", { width: 12, height: 8 }), true));
  step(() => state.open(image("b"), preset("centre", { width: 12, height: 8 }), null, false));
  step(() => {
    state.beginStroke().data[0] = 9;
    state.endStroke();
  });
  assert.deepEqual(seen, [true, true, false, true, false, false]);
  for (const before of [false, true, false, true]) {
    state.undo();
    assert.equal(state.movable, before);
  }
});

test("undo and redo walk through images and masks as through a list", () => {
  const state = new State(() => {});
  let seed = 5;
  const chance = (n) => (seed = (seed * 16807) % 2147483647) % n;
  let [list, at] = [[], -1];
  for (let step = 0; step < 500; step++) {
    const what = chance(6);
    if (what === 0 && at > 0) [state.undo(), at--];
    else if (what === 1 && at < list.length - 1) [state.redo(), at++];
    else if (what === 2 || at < 0) {
      state.open(image(`p${step}`));
      list = [...list.slice(0, at + 1), [`p${step}`, blank({ width: 12, height: 8 })]];
      at = list.length - 1;
    } else {
      const mask = blank({ width: 12, height: 8 });
      mask.data[chance(96)] = 1 + chance(255);
      const before = state.version;
      state.paint(mask);
      if (state.version === before) continue;
      list = [...list.slice(0, at + 1), [list[at][0], mask]];
      at = list.length - 1;
    }
    if (list.length > 150) [list, at] = [list.slice(-150), at - (list.length - 150)];
    assert.equal(state.image.path, list[at][0]);
    assert.ok(equal(state.mask, list[at][1]));
  }
});

test("the oldest entries are dropped first, by their bytes", () => {
  const state = new State(() => {});
  state.maxBytes = 1000;
  for (let i = 0; i < 50; i++) state.open(image(i, 10, 10));
  assert.deepEqual(state.past.map((entry) => entry.image.path), Array.from({ length: 10 }, (_, i) => 39 + i));
});

test("an image under another path keeps its mask, in the past too", () => {
  const state = new State(() => {});
  state.open(image("a"));
  state.paint(preset("centre", { width: 12, height: 8 }));
  const { version } = state;
  state.rename("a", image("b"));
  assert.equal(state.image.path, "b");
  assert.equal(state.version, version, "answers about it still count");
  assert.ok(equal(state.mask, preset("centre", { width: 12, height: 8 })));
  state.undo();
  assert.equal(state.image.path, "b");
});

test("a stroke ends before anything else is done, and belongs to the image on which it began", () => {
  let finish = () => {};
  const state = new State(() => {}, () => finish());
  finish = () => state.stroke && state.endStroke();
  for (const [act, path] of [[() => state.open(image("b")), "a"], [() => state.undo(), "a"], [() => state.paint(blank({ width: 12, height: 8 })), "a"]]) {
    state.open(image("a"));
    const { version } = state;
    state.beginStroke().data[5] = 255;
    act();
    assert.equal(state.stroke, null);
    assert.equal(state.version, version + 2, "the stroke, and what was done");
    const stroke = act.toString().includes("undo") ? state.future.at(-1) : state.past.at(-1);
    assert.deepEqual([stroke.image.path, stroke.mask.data[5]], [path, 255]);
    assert.equal(state.mask.data[5], 0);
  }
});

test("what arrives during a stroke comes at its end, in its order", () => {
  const state = new State(() => {}, () => {});
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
  const [centre, border] = ["centre", "border"].map((name) => preset(name, { width: 12, height: 8 }));
  const now = () => [state.image.path, state.mask.data.indexOf(255), field.text];
  state.open(image("a"), null, "of the example");
  const seen = [now()];
  const step = (act) => (act(), state.noteWords(), seen.push(now()));
  const { version } = state;
  step(() => (field.text = "typed")); // a pause
  assert.equal(state.version, version, "answers about the image still count");
  field.text = "typed and painted";
  seen.push(now());
  step(() => state.paint(centre));
  step(() => state.changeWords("described"));
  step(() => state.paint(border));
  step(() => state.open(image("b"), centre, "of another"));
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
});

test("words cost no masks, and are left alone where there is no prompt", () => {
  let text = null;
  const state = new State(() => {}, () => {}, { read: () => text, write: () => assert.fail("there is no prompt") });
  state.open(image("a"));
  state.paint(preset("centre", { width: 12, height: 8 }));
  state.undo();
  state.maxBytes = 3 * 12 * 8;
  for (let i = 0; i < 50; i++) {
    text = `words ${i}`;
    state.noteWords();
  }
  assert.equal(state.past.length, 49);
});
