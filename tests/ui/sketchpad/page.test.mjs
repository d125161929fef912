// The page around the canvas: runs, what will change, words, what an image grows by; links, and what a reload finds.
import assert from "node:assert/strict";
import test from "node:test";
import { fileUrl } from "../../../imagebart/ui/sketchpad/gradio.js";
import { decodeLink, encodeLink, loadFromTab, saveInTab } from "../../../imagebart/ui/sketchpad/images.js";
import { blank } from "../../../imagebart/ui/sketchpad/mask.js";
import { GROWTH, grownMask } from "../../../imagebart/ui/sketchpad/modes.js";
import { Prompt } from "../../../imagebart/ui/sketchpad/prompt.js";
import { Fit, REST } from "../../../imagebart/ui/sketchpad/questions.js";
import { RunState } from "../../../imagebart/ui/sketchpad/run.js";

// For one test, global values that a browser has; a function is called for its value.
const provide = (t, values) => {
  for (const [name, value] of Object.entries(values)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { configurable: true, get: typeof value === "function" ? value : () => value });
    t.after(() => before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]);
  }
};
const settled = () => new Promise(setImmediate);

// Runs.

// A run's state, and the names that were sent to the server.
const runState = (t, answer = async () => null) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const sent = [];
  return [new RunState((name) => (sent.push(name), answer()), {}), sent];
};

test("each run has a name of its own, which Cancel sends until the run reports", async (t) => {
  const [run, sent] = runState(t, () => Promise.reject(new Error("no connection")));
  const pass = async () => (await settled(), t.mock.timers.tick(1000), settled());
  run.cancel();
  assert.deepEqual([run.state, sent], ["", []]);
  const names = ["first", "second"].map(() => (run.start(), run.data.runName));
  assert.equal(new Set(names).size, 2);
  assert.match(names[0], /^[0-9a-f]{32}$/);
  run.cancel();
  run.cancel();
  assert.deepEqual([run.state, sent], ["cancelling", [names[1]]]);
  await pass();
  await pass();
  run.report(names[0]);
  assert.deepEqual([run.state, sent.length], ["cancelling", 3]);
  run.report(names[1]);
  await pass();
  assert.deepEqual([run.state, sent.length], ["reported", 3]);
});

test("Cancel after the end does nothing, and a late report changes nothing", (t) => {
  const [run, sent] = runState(t);
  run.start();
  const { runName } = run.data;
  run.report(runName);
  run.cancel();
  assert.deepEqual([run.state, sent], ["reported", []]);
  run.end();
  run.report(runName);
  assert.equal(run.state, "");
  run.start();
  run.report(runName);
  assert.equal(run.state, "requested");
});

test("who asks for a run while the last one is being cancelled gets it when that is over", (t) => {
  const pressed = [];
  provide(t, { document: { getElementById: (id) => ({ click: () => pressed.push(id) }) } });
  const [run] = runState(t);
  assert.equal(run.isFree("edit"), true);
  run.start();
  assert.equal(run.isFree("edit"), false, "a second click of the same hand");
  run.cancel();
  assert.equal(run.isFree("vary"), false);
  for (const end of [1, 2]) {
    run.end();
    t.mock.timers.tick(0);
    assert.deepEqual([run.state, pressed], ["", ["vary"]], `end ${end}`);
  }
});

// What will change: one question at a time, the newest next, and no older answer counts.

// Questions are numbered in `asked`; `answer` answers the one that waits.
const fit = (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const seen = { asked: 0, shown: [], words: "a hat" };
  const ask = () => {
    seen.asked += 1;
    return new Promise((done) => (seen.answer = (value) => (done(value), settled())));
  };
  seen.fit = new Fit({ words: () => seen.words, ask, show: (answer) => seen.shown.push(answer) });
  seen.change = (rest = 1000) => (seen.fit.change(), t.mock.timers.tick(rest));
  return seen;
};

test("changes that follow each other are one question, and while it is not answered only the newest one waits", async (t) => {
  const seen = fit(t);
  for (let i = 0; i < 5; i++) seen.change(50);
  assert.equal(seen.asked, 0);
  t.mock.timers.tick(1000);
  for (let i = 0; i < 3; i++) seen.change();
  assert.equal(seen.asked, 1);
  await seen.answer({ share: 1 });
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [2, null]);
  seen.change(0);
  await seen.answer({ share: 2 });
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [2, null], "not before the change has rested");
  t.mock.timers.tick(1000);
  await seen.answer({ share: 4 });
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [3, { share: 4 }]);
});

test("words are asked about when they rest, and only where they are others", async (t) => {
  const seen = fit(t);
  seen.change();
  await seen.answer({ share: 3 });
  seen.fit.changeWords();
  t.mock.timers.tick(1000);
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [1, { share: 3 }]);
  seen.words = "a ha";
  seen.fit.changeWords();
  assert.equal(seen.shown.at(-1), null);
  t.mock.timers.tick(REST - 1);
  assert.equal(seen.asked, 1);
  t.mock.timers.tick(1);
  assert.equal(seen.asked, 2);
});

// Words.

// A prompt on a page with two lines below it and two suggestions; `lines` are what they say.
const prompt = (t, answer = {}) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const box = { value: "", focus: () => {} };
  const line = () => ({ dataset: {}, parts: [], replaceChildren(...parts) { this.parts = parts; } });
  const lines = { unknown: line(), corrections: line() };
  const chips = ["a hat", "red hair"].map((add) => ({ dataset: { add }, setAttribute: (_, pressed) => (chips[add] = pressed) }));
  provide(t, { document: {
    addEventListener: () => {},
    querySelector: (wanted) => wanted.startsWith("#prompt") ? box : null,
    querySelectorAll: () => chips,
    getElementById: (id) => lines[id],
    createElement: () => ({ addEventListener(_, act) { this.click = act; } }),
  } });
  const found = { box, lines, chips };
  const change = (words) => (box.value = words);
  found.prompt = new Prompt({ check: async () => answer, change, onChange: () => {} });
  found.type = async (words) => {
    box.value = words;
    found.prompt.changed();
    t.mock.timers.tick(1000);
    await settled();
    return lines.unknown.parts.filter((part) => part.textContent).map((part) => part.textContent);
  };
  return found;
};

test("words that the server does not know are named as long as they are there, whole and in any script", async (t) => {
  const unknown = ["isn't", "zébra", "шляпа", "帽子", "c++"];
  const { type, lines, prompt: field, box } = prompt(t, { unknown });
  assert.deepEqual(await type("the hat isn't a ZÉBRA, шляпа 帽子 c++"), unknown);
  assert.equal(lines.unknown.hidden, false);
  assert.deepEqual(await type("шляпами, безшляпа, zébras isn't"), ["isn't"]);
  box.value = "a hat";
  field.show(); // before the server has answered
  assert.equal(lines.unknown.hidden, true);
});

test("a word that is read as another one is put right by a click, where it stands", async (t) => {
  const { type, lines, box } = prompt(t, { unknown: [], corrections: { sunglases: "sunglasses" } });
  await type("Sunglases, a sunglasestand");
  lines.corrections.parts[1].click();
  assert.equal(box.value, "sunglasses, a sunglasestand");
});

test("a suggestion is added to the words by a click, and taken out by another one", async (t) => {
  const { type, chips, box, prompt: field } = prompt(t);
  await type("blue,  Red Hair");
  assert.deepEqual([chips["a hat"], chips["red hair"]], ["false", "true"]);
  field.toggleWords("a hat");
  assert.equal(box.value, "blue, Red Hair, a hat");
  field.toggleWords("red hair");
  assert.equal(box.value, "blue, a hat");
});

for (const [typed, stays] of [["", "a hat"], ["my own", "my own"]]) {
  test(`words that are written before the prompt is there come with it, but not over "${typed}"`, (t) => {
    const { prompt: field } = prompt(t);
    const [frames, box] = [[], new class {
      #value = typed;
      get value() { return this.#value; }
      set value(words) { this.#value = words; }
      dispatchEvent() {}
    }()];
    let there = null;
    provide(t, {
      document: { querySelector: () => there, getElementById: () => there },
      requestAnimationFrame: () => (act) => frames.push(act),
    });
    field.write("a hat");
    there = box;
    frames.pop()();
    assert.equal(box.value, stays);
    field.write("a beard");
    assert.equal(box.value, "a beard");
  });
}

// What an image grows by.

test("an image grows to a shape on both sides, or by a quarter on one, and not where it has the shape", () => {
  const size = { width: 40, height: 40 };
  const grown = (name, { width, height } = size) => Object.values(GROWTH[name]({ width, height }));
  assert.deepEqual(grown("expandWide"), [15, 0, 16, 0]); // left, top, right, bottom
  assert.deepEqual(grown("expandSquare"), [0, 0, 0, 0]);
  assert.deepEqual(grown("expandSquare", { width: 99, height: 40 }), [0, 29, 0, 30]);
  assert.deepEqual(grown("expandWide", { width: 90, height: 40 }), [0, 5, 0, 6]);
  assert.deepEqual(["Left", "Up", "Right", "Down"].map((side) => grown(`expand${side}`).indexOf(10)), [0, 1, 2, 3]);
});

test("what is new is the mask, with what was painted before, in the pixels of what is painted on", () => {
  for (const scale of [1, 0.5]) {
    const image = { width: 60, height: 50, mask_size: { width: 60 * scale, height: 50 * scale } };
    const before = blank({ width: 40 * scale, height: 40 * scale });
    before.data[0] = 77; // its upper left corner
    const { data } = grownMask(image, { left: 12, top: 10, right: 8, bottom: 0 }, before);
    data.forEach((value, i) => {
      const [x, y] = [i % (60 * scale), Math.floor(i / (60 * scale))];
      const kept = x >= 12 * scale && x < 52 * scale && y >= 10 * scale;
      assert.equal(value, !kept ? 255 : x === 12 * scale && y === 10 * scale ? 77 : 0);
    });
  }
});

// Links, addresses, and what a reload finds.

test("a link holds what was put into it, in letters that an address may have; one that was cut holds nothing", async () => {
  const shared = { controls: { words: "sunglasses 😀 + / =", seed: 7 }, token: "a/b.png", mask: "0 5 255 1 ".repeat(2000).trim() };
  const text = await encodeLink(shared);
  assert.match(text, /^[\w-]+$/);
  assert.ok(text.length < 600);
  assert.deepEqual(await decodeLink(text), shared);
  for (const bad of ["", "%%", "abcd", text.slice(0, -6)]) assert.equal(await decodeLink(bad), null);
});

test("files are asked for below the path at which the page is", (t) => {
  provide(t, { window: { gradio_config: { root: "https://a.example/some/path/", api_prefix: "/gradio_api" } } });
  assert.equal(fileUrl("/tmp/a b#1.png"), "https://a.example/some/path/gradio_api/file=/tmp/a%20b%231.png");
});

// A storage of a browser that takes so many letters.
const storage = (limit) => {
  const values = new Map();
  return {
    getItem: (name) => values.get(name) ?? null,
    removeItem: (name) => values.delete(name),
    setItem: (name, value) => {
      if (value.length > limit) throw new Error("QuotaExceededError");
      values.set(name, value);
    },
  };
};
const forbidden = () => { throw new Error("SecurityError"); };

test("what does not fit into the browser's storage leaves nothing old there, and where it is forbidden nothing breaks", (t) => {
  provide(t, { sessionStorage: storage(20) });
  assert.equal(saveInTab("now", "a short value"), true);
  assert.equal(loadFromTab("now"), "a short value");
  assert.equal(saveInTab("now", "a value that is too long"), false);
  assert.equal(loadFromTab("now"), null);
  provide(t, { sessionStorage: forbidden });
  assert.deepEqual([saveInTab("now", "any"), loadFromTab("now")], [false, null]);
});
