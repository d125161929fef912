// The questions what will change: one at a time, the newest next, and no older answer counts.
import assert from "node:assert/strict";
import test from "node:test";
import { Fit, REST } from "../../../imagebart/ui/sketchpad/fit.js";

const fit = (t, more = {}) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const seen = { sent: [], shown: [], words: "a hat" };
  const send = (question) => seen.sent.push(question) > 0;
  seen.fit = new Fit({ words: () => seen.words, send, show: (answer) => seen.shown.push(answer), ...more });
  return seen;
};

test("changes that follow each other are one question", (t) => {
  const { fit: one, sent, shown } = fit(t);
  for (let i = 0; i < 5; i++) {
    one.change();
    t.mock.timers.tick(50);
  }
  assert.deepEqual(sent, []);
  t.mock.timers.tick(1000);
  assert.deepEqual(sent, [5]);
  one.receive({ question: 5, share: 3 });
  assert.deepEqual(shown.at(-1), { share: 3 });
});

test("while a question is not answered only the newest next one waits, and old answers are not shown", (t) => {
  const { fit: one, sent, shown } = fit(t);
  for (let i = 0; i < 4; i++) {
    one.change();
    t.mock.timers.tick(1000);
  }
  assert.deepEqual(sent, [1]);
  one.receive({ question: 1, share: 1 });
  assert.deepEqual([sent, shown.at(-1)], [[1, 4], null]);
  one.receive({ question: 1, share: 1 });
  assert.equal(shown.at(-1), null);
  one.receive({ question: 4, share: 4 });
  assert.deepEqual([sent, shown.at(-1)], [[1, 4], { share: 4 }]);
});

test("an answer that comes in the pause after a change asks nothing too early", (t) => {
  const { fit: one, sent } = fit(t);
  one.change();
  t.mock.timers.tick(1000);
  one.change();
  one.receive({ question: 1 });
  assert.deepEqual(sent, [1]);
  t.mock.timers.tick(1000);
  assert.deepEqual(sent, [1, 2]);
});

test("words are asked about when they rest, and only where they are others", (t) => {
  const seen = fit(t);
  seen.fit.change();
  t.mock.timers.tick(1000);
  seen.fit.receive({ question: 1, share: 3 });
  seen.fit.changeWords();
  t.mock.timers.tick(1000);
  assert.deepEqual([seen.sent, seen.shown.at(-1)], [[1], { share: 3 }]);
  seen.words = "a ha";
  seen.fit.changeWords();
  assert.equal(seen.shown.at(-1), null);
  t.mock.timers.tick(REST - 1);
  assert.deepEqual(seen.sent, [1]);
  t.mock.timers.tick(1);
  assert.deepEqual(seen.sent, [1, 2]);
});

test("where there is nothing to ask that is known at once", (t) => {
  const { fit: one, shown } = fit(t, { send: () => false });
  one.change();
  t.mock.timers.tick(1000);
  assert.deepEqual(shown, [null, {}]);
});

test("where no answer will come nothing waits", (t) => {
  const failing = fit(t);
  failing.fit.change();
  t.mock.timers.tick(1000);
  failing.fit.receive({});
  assert.deepEqual(failing.shown.at(-1), {});
  failing.fit.change();
  t.mock.timers.tick(1000);
  failing.fit.again();
  t.mock.timers.tick(1000);
  assert.deepEqual(failing.sent, [1, 2, 3]);
});
