// The sketchpad's state: an image with its mask, and what was there before, for undo and redo. The only place where
// either changes. Each change has a version of its own and is passed on at once, so that nobody sees an outdated one.
//
// A stroke belongs to the image and mask on which it began. So whatever a person does meanwhile ends it first, and what
// arrives from the server (an image, a mask, a result) waits until it has ended.
import { blank, copy, equal, maskSize } from "./mask.js";

const MAX_ENTRIES = 200;
const MAX_BYTES = 64e6; // of all masks

// Entries are { image, mask, words (before and after, where those of the prompt changed) }. They share what did not
// change, so that one costs no more than its mask; the oldest ones are dropped first.
export class UndoStack {
  constructor(maxBytes = MAX_BYTES) {
    Object.assign(this, { maxBytes, past: [], future: [] });
  }

  // `current` is replaced by another entry: nothing can be redone any more.
  push(current) {
    this.past.push(current);
    this.future = [];
    const bytes = () => this.past.reduce((sum, entry) => sum + entry.mask.data.length, 0);
    while (this.past.length > 1 && (this.past.length > MAX_ENTRIES || bytes() > this.maxBytes)) this.past.shift();
  }

  // The entry before `current`; null where there is none.
  undo(current) {
    return this.step(current, this.past, this.future);
  }

  redo(current) {
    return this.step(current, this.future, this.past);
  }

  step(current, from, to) {
    if (!from.length) return null;
    to.push(current);
    return from.pop();
  }
}

export class State {
  // onChange: called after every change, with "paint" where it is another mask on the same image, and with "nothing" after a
  // stroke that changed nothing; finishStroke: ends the stroke that goes on, as if the pointer was lifted;
  // showWords: sets the prompt.
  constructor(onChange, finishStroke = () => {}, showWords = () => {}) {
    Object.assign(this, { onChange, finishStroke, showWords, version: 0, undoStack: new UndoStack(), current: null });
    Object.assign(this, { stroke: null, waiting: [] });
  }

  get mask() {
    return this.current?.mask ?? null;
  }

  get image() {
    return this.current?.image ?? null;
  }

  // A stroke begins: the mask that it paints on, a copy.
  beginStroke() {
    this.stroke = copy(this.mask);
    return this.stroke;
  }

  // It becomes the mask, or is dropped; then comes what has waited.
  endStroke(keep = true) {
    const { stroke, version } = this;
    this.stroke = null;
    if (stroke && keep) this.paint(stroke);
    if (stroke && version === this.version) this.onChange("nothing");
    for (const act of this.waiting.splice(0)) act();
  }

  // Act upon something that arrives: now, or at the end of the stroke that goes on.
  onArrival(act) {
    if (this.stroke) this.waiting.push(act);
    else act();
  }

  // Another image, with a mask or an empty one.
  open(image, mask = null) {
    this.finishStroke();
    const { width, height } = maskSize(image);
    this.change({ image, mask: mask ?? blank(width, height) });
  }

  // Another mask.
  paint(mask) {
    this.finishStroke();
    if (!this.current || equal(mask, this.current.mask)) return;
    this.change({ image: this.image, mask }, "paint");
  }

  // Other words in the prompt, which undo takes back like another mask. Image and mask stay, and so does the version.
  changeWords(before, words) {
    this.finishStroke();
    if (!this.current) return;
    this.undoStack.push(this.current);
    this.current = { image: this.image, mask: this.mask, words: { before, after: words } };
    this.onChange();
  }

  // The same image under another path: the server had deleted it. No new version, so that answers about it still count.
  rename(path, image) {
    for (const entry of [this.current, ...this.undoStack.past, ...this.undoStack.future]) {
      if (entry?.image.path === path) entry.image = image;
    }
    this.onChange();
  }

  undo() {
    this.finishStroke();
    const { current } = this;
    const shown = this.show(current && this.undoStack.undo(current));
    if (shown && current.words) this.showWords(current.words.before);
    return shown;
  }

  redo() {
    this.finishStroke();
    const shown = this.show(this.current && this.undoStack.redo(this.current));
    if (shown && this.current.words) this.showWords(this.current.words.after);
    return shown;
  }

  change(entry, why) {
    if (this.current) this.undoStack.push(this.current);
    this.show(entry, why);
  }

  show(entry, why) {
    if (!entry) return false;
    this.current = entry;
    this.version += 1;
    this.onChange(why);
    return true;
  }
}
