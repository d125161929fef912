// Cancel: the server is told the run's name until the run has said what became of it.
import assert from "node:assert/strict";
import test from "node:test";
import { Asked } from "../../../imagebart/ui/sketchpad/asked.js";

const asked = (answer = async () => null) => {
  const told = [];
  return [new Asked((name) => (told.push(name), answer()), {}), told];
};

// Time passes when the test says so.
const clock = (t) => {
  const real = globalThis.setTimeout;
  const waiting = [];
  globalThis.setTimeout = (act) => waiting.push(act);
  t.after(() => (globalThis.setTimeout = real));
  return async () => {
    for (let i = 0; i < 5; i += 1) await null;
    waiting.splice(0).forEach((act) => act());
    for (let i = 0; i < 5; i += 1) await null;
  };
};

test("each run has a name of its own, which Cancel tells", (t) => {
  clock(t);
  const [run, told] = asked();
  run.cancel();
  assert.deepEqual([run.state, told], ["", []]);
  const names = ["first", "second"].map(() => (run.begin(), run.about.name));
  assert.equal(new Set(names).size, 2);
  assert.match(names[0], /^[0-9a-f]{32}$/);
  run.cancel();
  run.cancel();
  assert.deepEqual([run.state, told], ["cancelling", [names[1]]]);
});

test("what is lost on its way is told again, until the run is over", async (t) => {
  const pass = clock(t);
  const [run, told] = asked(() => Promise.reject(new Error("no line")));
  run.begin();
  run.cancel();
  await pass();
  await pass();
  assert.equal(told.length, 3);
  run.told("another run");
  assert.equal(run.state, "cancelling");
  run.told(run.about.name);
  await pass();
  assert.deepEqual([run.state, told.length], ["told", 3]);
});

test("Cancel after the end does nothing, and a late word of an end changes nothing", () => {
  const [run, told] = asked();
  run.begin();
  const { name } = run.about;
  run.told(name);
  run.cancel();
  assert.deepEqual([run.state, told], ["told", []]);
  run.about.run = ""; // Gradio has heard of the end
  run.told(name);
  assert.equal(run.state, "");
  run.begin();
  run.told(name);
  assert.equal(run.state, "asked");
});
