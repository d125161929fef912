// The questions what will change: one at a time, the newest next, and no older answer counts.
import assert from "node:assert/strict";
import test from "node:test";
import { Fit, REST } from "../../../imagebart/ui/sketchpad/questions.js";

// Questions are numbered in `asked`; `answer` answers the one that waits.
const fit = (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const seen = { asked: 0, shown: [], words: "a hat" };
  const ask = () => {
    seen.asked += 1;
    return new Promise((done) => (seen.answer = async (value) => (done(value), await new Promise(setImmediate))));
  };
  seen.fit = new Fit({ words: () => seen.words, ask, show: (answer) => seen.shown.push(answer) });
  return seen;
};

test("changes that follow each other are one question", async (t) => {
  const seen = fit(t);
  for (let i = 0; i < 5; i++) {
    seen.fit.change();
    t.mock.timers.tick(50);
  }
  assert.equal(seen.asked, 0);
  t.mock.timers.tick(1000);
  assert.equal(seen.asked, 1);
  await seen.answer({ share: 3 });
  assert.deepEqual(seen.shown.at(-1), { share: 3 });
});

test("while a question is not answered only the newest next one waits, and old answers are not shown", async (t) => {
  const seen = fit(t);
  for (let i = 0; i < 4; i++) {
    seen.fit.change();
    t.mock.timers.tick(1000);
  }
  assert.equal(seen.asked, 1);
  await seen.answer({ share: 1 });
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [2, null]);
  await seen.answer({ share: 4 });
  assert.deepEqual([seen.asked, seen.shown.at(-1)], [2, { share: 4 }]);
});

test("an answer that comes in the pause after a change asks nothing too early", async (t) => {
  const seen = fit(t);
  seen.fit.change();
  t.mock.timers.tick(1000);
  seen.fit.change();
  await seen.answer({});
  assert.equal(seen.asked, 1);
  t.mock.timers.tick(1000);
  assert.equal(seen.asked, 2);
});

test("words are asked about when they rest, and only where they are others", async (t) => {
  const seen = fit(t);
  seen.fit.change();
  t.mock.timers.tick(1000);
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
