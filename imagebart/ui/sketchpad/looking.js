// Where words belong and what a picture shows: asked for by buttons, answered by the event "imagebart-looked". What is
// found is laid like any ready mask, and only on what was asked about.
import { press, promptBox, write } from "./around.js";
import { bounds, unpack } from "./bitmap.js";

const LOOKING = "Looking at the picture …";
const FOUND = "Found by your words. Correct it, or press Edit.";
const INSTEAD = "Nothing was painted: your words said where.";

export class Looking {
  constructor(pad) {
    this.pad = pad;
    this.edits = null; // the version on which Edit waits for a mask
  }

  find(edits = null) {
    this.edits = edits;
    this.ask("select");
  }

  // The words that the picture shows, into the prompt.
  describe() {
    this.ask("copy");
  }

  ask(event) {
    this.pad.say(LOOKING);
    this.pad.trigger(event);
  }

  // Edit with words and without a mask: first the place is found. False where there is something to edit, or no words.
  edit() {
    const { mask, version } = this.pad.state;
    if (!mask || bounds(mask) || !promptBox()?.value.trim()) return false;
    this.find(version);
    return true;
  }

  answer({ version, task, mask, words, gone }) {
    const { state, sent } = this.pad;
    this.pad.say("");
    const edits = task === "find" && this.edits === version;
    if (edits) this.edits = null;
    if (gone) return void this.pad.again({ version, task: edits ? "edit" : task });
    if (words && sent.get(version)?.picture === state.picture) write(words);
    if (!mask || version !== state.version) return;
    const { width, height } = state.mask;
    this.pad.paint(() => unpack(mask, width, height));
    this.pad.say(edits ? INSTEAD : FOUND);
    if (edits) press("edit");
  }
}
