// What was on the sketchpad before, for undo and redo: each stop is a picture with its mask. Stops share what did not
// change, so that one costs no more than its mask; the oldest are forgotten first.

const MOST_STOPS = 200;
const MOST_BYTES = 64e6;

export class Trail {
  constructor(most = MOST_BYTES) {
    this.most = most;
    this.back = [];
    this.forward = [];
  }

  // Another stop replaces `now`. What had been undone is forgotten.
  leave(now) {
    this.back.push(now);
    this.forward = [];
    while (this.back.length > 1 && (this.back.length > MOST_STOPS || this.bytes() > this.most)) this.back.shift();
  }

  // The stop before `now`; null where there is none.
  undo(now) {
    return this.walk(now, this.back, this.forward);
  }

  // The stop that was left by undoing; null where there is none.
  redo(now) {
    return this.walk(now, this.forward, this.back);
  }

  walk(now, from, to) {
    if (!from.length) return null;
    to.push(now);
    return from.pop();
  }

  bytes() {
    return this.back.reduce((sum, stop) => sum + stop.mask.data.length, 0);
  }
}
