// The sketchpad's state: an image with its mask, and what was there before, for undo and redo. The only place where
// either changes. Each change has a version of its own and is passed on at once, so that nobody sees an outdated one.
import { blank, equal, maskSize } from "./mask.js";

const MAX_ENTRIES = 200;
const MAX_BYTES = 64e6; // of all masks

// Entries are { image, mask }. They share what did not change, so that one costs no more than its mask; the oldest ones
// are dropped first.
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
  // onChange: called after every change.
  constructor(onChange) {
    Object.assign(this, { onChange, version: 0, undoStack: new UndoStack(), current: null });
  }

  get mask() {
    return this.current?.mask ?? null;
  }

  get image() {
    return this.current?.image ?? null;
  }

  // Another image, with a mask or an empty one.
  open(image, mask = null) {
    const { width, height } = maskSize(image);
    this.change({ image, mask: mask ?? blank(width, height) });
  }

  // Another mask.
  paint(mask) {
    if (!this.current || equal(mask, this.current.mask)) return;
    this.change({ ...this.current, mask });
  }

  // The same image under another path: the server had deleted it. No new version, so that answers about it still count.
  rename(path, image) {
    for (const entry of [this.current, ...this.undoStack.past, ...this.undoStack.future]) {
      if (entry?.image.path === path) entry.image = image;
    }
    this.onChange();
  }

  undo() {
    return this.show(this.current && this.undoStack.undo(this.current));
  }

  redo() {
    return this.show(this.current && this.undoStack.redo(this.current));
  }

  change(entry) {
    if (this.current) this.undoStack.push(this.current);
    this.show(entry);
  }

  show(entry) {
    if (!entry) return false;
    this.current = entry;
    this.version += 1;
    this.onChange();
    return true;
  }
}
