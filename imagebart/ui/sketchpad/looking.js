// Where words belong and what a picture shows: asked for by buttons, answered by the event "imagebart-looked". What is
// found is laid like any ready mask, and only on what was asked about.
import { press, promptBox, write } from "./around.js";
import { bounds, pack, unpack } from "./bitmap.js";
import { recall } from "./store.js";

const LOOKING = "Looking at the picture …";
const FOUND = "Found by your words. Correct it, or press Edit.";
const INSTEAD = "Nothing was painted: your words said where.";
const GONE = "The server does not answer. This page goes on by itself when it does.";
const PROBE = 2000; // milliseconds between two looks whether the server is there

export class Looking {
  constructor(pad) {
    this.pad = pad;
    this.edits = null; // the version on which Edit waits for a mask
    this.asked = 0;
    this.waiting = {}; // by task: what was asked, and is not yet answered
    const { picture, mask, of } = recall("now") ?? {};
    this.found = of ? { of, picture: picture.path, mask } : null;
  }

  find(edits = null) {
    this.edits = edits;
    this.ask("find", "select", promptBox()?.value);
  }

  // The words that the picture shows, into the prompt.
  describe() {
    this.ask("describe", "copy");
  }

  ask(task, event, words = "") {
    const about = `${this.pad.state.version} ${words}`;
    this.pad.say(LOOKING);
    const asked = (this.waiting[task] ??= []);
    if (asked.at(-1) === about) return;
    asked.push(about);
    this.pad.trigger(event);
    this.watch(++this.asked);
  }

  // Of a server that is gone, Gradio tells nobody who waits for an answer.
  async watch(asked) {
    for (;;) {
      await new Promise((done) => setTimeout(done, PROBE));
      if (asked !== this.asked) return;
      const reply = await fetch(location.pathname, { method: "HEAD", cache: "no-store" }).catch(() => null);
      if (asked !== this.asked) return;
      if (!reply?.ok) return void this.over(GONE);
    }
  }

  // Nothing is waited for any more.
  over(sentence) {
    this.asked += 1;
    this.waiting = {};
    this.pad.say(sentence);
  }

  // Edit with words and without a mask: first the place is found. False where there is something to edit, or no words.
  edit() {
    const { mask, version } = this.pad.state;
    if (!mask || bounds(mask) || !promptBox()?.value.trim()) return false;
    this.find(version);
    return true;
  }

  // A mask as the place of words in the picture, for as long as it is neither corrected nor laid on another one.
  place(of, mask) {
    this.found = { of, picture: this.pad.state.picture.path, mask: pack(mask) };
    return mask;
  }

  // The words whose place a mask is, packed; null where somebody painted it.
  of(picture, mask) {
    return this.found?.mask === mask && this.found.picture === picture?.path ? this.found.of : null;
  }

  // What was found; without a task: nothing will be.
  answer({ version, task, mask, of, words, gone }) {
    const { state, sent } = this.pad;
    // Answers come in the order of the questions. Of the same question only the last one counts.
    if (this.waiting[task]?.length > 1) return void this.waiting[task].shift();
    this.over("");
    const edits = task === "find" && this.edits === version;
    if (edits || !task) this.edits = null;
    if (gone) return void this.pad.again({ version, task: edits ? "edit" : task });
    if (words && sent.get(version)?.picture === state.picture) write(words);
    if (!mask || version !== state.version) return;
    const { width, height } = state.mask;
    this.pad.paint(() => this.place(of, unpack(mask, width, height)));
    if (edits) press("edit");
    this.pad.say(edits ? INSTEAD : FOUND);
  }
}
