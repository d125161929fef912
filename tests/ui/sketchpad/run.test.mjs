// The state of a run: Cancel is sent with the run's name until the run reports what became of it.
import assert from "node:assert/strict";
import test from "node:test";
import { RunState } from "../../../imagebart/ui/sketchpad/run.js";

// A run's state, and the names that were sent to the server.
const runState = (answer = async () => null) => {
  const sent = [];
  return [new RunState((name) => (sent.push(name), answer()), {}), sent];
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

test("each run has a name of its own, which Cancel sends", (t) => {
  clock(t);
  const [run, sent] = runState();
  run.cancel();
  assert.deepEqual([run.state, sent], ["", []]);
  const names = ["first", "second"].map(() => (run.start(), run.data.runName));
  assert.equal(new Set(names).size, 2);
  assert.match(names[0], /^[0-9a-f]{32}$/);
  run.cancel();
  run.cancel();
  assert.deepEqual([run.state, sent], ["cancelling", [names[1]]]);
});

test("a lost Cancel is sent again, until the run reports", async (t) => {
  const pass = clock(t);
  const [run, sent] = runState(() => Promise.reject(new Error("no connection")));
  run.start();
  run.cancel();
  await pass();
  await pass();
  assert.equal(sent.length, 3);
  run.report("another run");
  assert.equal(run.state, "cancelling");
  run.report(run.data.runName);
  await pass();
  assert.deepEqual([run.state, sent.length], ["reported", 3]);
});

test("Cancel after the end does nothing, and a late report changes nothing", () => {
  const [run, sent] = runState();
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
  const pass = clock(t);
  const pressed = [];
  globalThis.document = { getElementById: (id) => ({ click: () => pressed.push(id) }) };
  t.after(() => delete globalThis.document);
  const [run] = runState();
  assert.equal(run.isFree("edit"), true);
  run.start();
  assert.equal(run.isFree("edit"), false, "a second click of the same hand");
  run.cancel();
  assert.equal(run.isFree("vary"), false);
  run.end();
  return pass().then(() => {
    assert.deepEqual([run.state, pressed], ["", ["vary"]]);
    run.end();
    return pass();
  }).then(() => assert.deepEqual(pressed, ["vary"]));
});
