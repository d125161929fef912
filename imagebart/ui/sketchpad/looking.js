// Where words belong and what a picture shows: asked for by buttons, answered by the event "imagebart-looked". What is
// found is laid like any ready mask, and only on what was asked about.
import { press, promptBox, write } from "./around.js";
import { bounds, unpack } from "./bitmap.js";

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
    this.pad.paint(() => unpack(mask, width, height));
    this.pad.props.value = { ...this.pad.props.value, of }; // until the mask changes
    if (edits) press("edit");
    this.pad.say(edits ? INSTEAD : FOUND);
  }
}
