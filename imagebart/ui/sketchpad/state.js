// The sketchpad's state: an image with its mask and the words of the prompt, and what was there before, for undo and redo.
// The only place where image and mask change. Each change of theirs has a version of its own and is passed on at once, so
// that nobody sees an outdated one. Words change in the prompt, by whomever, and become a step with `noteWords`.
//
// A stroke belongs to the image and mask on which it began. So whatever a person does meanwhile ends it first, and what
// arrives from the server (an image, a mask, a result) waits until it has ended.
import { blank, copy, equal } from "./mask.js";

const MAX_ENTRIES = 200;
const MAX_BYTES = 64e6; // of all masks

// Entries are { image, mask, movable (nobody painted the mask: words about another place move it), words (null: not known) }.
// They share what did not change, so that one costs no more than its mask; the oldest ones are dropped first.
export class State {
  // onChange: called after every change, with true where it is only words; finishStroke: ends the stroke that goes on, as if
  // the pointer was lifted; prompt: how to read the words (null where there is no prompt) and to write them.
  constructor(onChange, finishStroke = () => {}, prompt = { read: () => null, write: () => {} }) {
    Object.assign(this, { onChange, finishStroke, prompt, version: 0, stroke: null, waiting: [] });
    Object.assign(this, { current: null, past: [], future: [], maxBytes: MAX_BYTES });
  }

  get mask() {
    return this.current?.mask ?? null;
  }

  get image() {
    return this.current?.image ?? null;
  }

  get movable() {
    return this.current?.movable ?? true;
  }

  // A stroke begins: the mask that it paints on, a copy.
  beginStroke() {
    this.stroke = copy(this.mask);
    return this.stroke;
  }

  // It becomes the mask, or is dropped; then comes what has waited.
  endStroke(keep = true) {
    const { stroke } = this;
    this.stroke = null;
    if (stroke && keep) this.paint(stroke);
    for (const act of this.waiting.splice(0)) act();
  }

  // Act upon something that arrives: now, or at the end of the stroke that goes on.
  onArrival(act) {
    if (this.stroke) this.waiting.push(act);
    else act();
  }

  // The same, for whom waits.
  settled() {
    return new Promise((act) => this.onArrival(act));
  }

  // Another image, with a mask or an empty one; and with words, where these come with it.
  open(image, mask = null, words = null, movable = true) {
    this.finishStroke();
    this.noteWords();
    this.change({ image, mask: mask ?? blank(image.mask_size), movable, words: words ?? this.current?.words ?? null });
  }

  // Another mask.
  paint(mask, movable = false) {
    this.finishStroke();
    this.noteWords();
    if (!this.current || equal(mask, this.current.mask)) return;
    this.change({ ...this.current, mask, movable });
  }

  // Other words, as a step of their own.
  changeWords(words) {
    this.finishStroke();
    this.noteWords();
    this.prompt.write(words);
    this.noteWords();
  }

  // The words that are in the prompt by now become a step, which undo takes back like another mask.
  noteWords() {
    const words = this.prompt.read();
    if (!this.current || words === null || words === this.current.words) return;
    if (this.current.words === null) this.current.words = words;
    else this.change({ ...this.current, words });
  }

  // The same image under another path: the server had deleted it. No new version, so that answers about it still count.
  rename(path, image) {
    for (const entry of [this.current, ...this.past, ...this.future]) {
      if (entry?.image.path === path) entry.image = image;
    }
    this.onChange(false);
  }

  undo() {
    return this.step(this.past, this.future);
  }

  redo() {
    return this.step(this.future, this.past);
  }

  // False where there is no step.
  step(from, to) {
    this.finishStroke();
    this.noteWords();
    if (!from.length) return false;
    to.push(this.current);
    this.show(from.pop());
    return true;
  }

  change(entry) {
    const { current, past, future } = this;
    if (current) past.push(current);
    future.length = 0;
    const bytes = () => [...new Set(past.map(({ mask }) => mask))].reduce((sum, { data }) => sum + data.length, 0);
    while (past.length > 1 && (past.length > MAX_ENTRIES || bytes() > this.maxBytes)) past.shift();
    this.show(entry);
  }

  show(entry) {
    const before = this.current;
    this.current = entry;
    if (entry.words !== null && entry.words !== before?.words && entry.words !== this.prompt.read()) {
      this.prompt.write(entry.words);
      entry.words = this.prompt.read() ?? entry.words; // a text field may hold others: its ends of lines
    }
    const onlyWords = before?.image === entry.image && before.mask === entry.mask;
    if (!onlyWords) this.version += 1; // answers about image and mask count until these change
    this.onChange(onlyWords);
  }
}
