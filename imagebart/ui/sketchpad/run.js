// Runs: the state of the last one, and the history; and what is asked of the model without a run: "Select by prompt" and
// "Describe image".
import { click, promptBox } from "./gradio.js";
import { loadFromTab, saveInTab } from "./images.js";
import { maskSize, unpack } from "./mask.js";
import { thumbnail } from "./review.js";
import { maskOutline } from "./view.js";

const RESEND = 1000; // milliseconds until Cancel is sent again
const MAX_HISTORY = 12;
const TASKS = { edit: "Edit", generate: "New image", vary: "Variation" };
const PROBE = 2000; // milliseconds between two checks whether the server is there
const IDLE_PROBES = 3; // times as long where nobody waits for it
const ASKING = "Looking at the image …";
const SELECTED = "Found by your words. Correct it, or press Edit.";
const SERVER_GONE = "The server does not answer. This page goes on by itself when it does.";

// Looks again and again whether the server is there, more often while somebody waits for it: Gradio does not tell that it
// is gone. waits: whether somebody does; say: called with a sentence when it is gone, and with "" when it is back.
export const watchServer = async (waits, say) => {
  let gone = false;
  for (let idle = 0; ; ) {
    await new Promise((done) => setTimeout(done, PROBE));
    idle = waits() || gone ? 0 : (idle + 1) % IDLE_PROBES;
    if (idle || document.hidden) continue;
    const reply = await fetch(location.pathname, { method: "HEAD", cache: "no-store" }).catch(() => null);
    if (!reply?.ok) say(SERVER_GONE); // again, as other sentences take its place
    else if (gone) say("");
    gone = !reply?.ok;
  }
};

// The last run that was started. Its name goes with the request and with Cancel, so that the server cancels exactly this
// run, whichever of the two arrives first. What became of it only the run itself reports.
export class RunState {
  // stop: asks the server to cancel the run of a name. data: where the page finds the state and the name.
  constructor(stop, data = document.documentElement.dataset) {
    Object.assign(this, { stop, data, next: null });
  }

  // "": none; "requested"; "cancelling"; "reported": it has a result or was cancelled, but Gradio does not know yet.
  get state() {
    return this.data.runState ?? "";
  }

  // Whether a run can start now that was asked for by the button of this name. If not, it starts when the last one is over,
  // which is soon; but a click on the way to a result is one of the same hand, and no further run.
  isFree(button) {
    if (this.state && this.state !== "requested") this.next = button;
    return !this.state;
  }

  // Gradio knows that the run is over.
  end() {
    this.data.runState = "";
    const { next } = this;
    this.next = null;
    if (next) setTimeout(() => click(next)); // when it has updated the page
  }

  // A run starts, with a name that nobody can guess.
  start() {
    const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
    const name = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    Object.assign(this.data, { runName: name, runState: "requested" });
  }

  // Sent until the run reports: a request may be lost, or the run arrive after it.
  async cancel() {
    this.next = null;
    if (this.state !== "requested") return;
    this.data.runState = "cancelling";
    const { runName } = this.data;
    while (this.state === "cancelling" && this.data.runName === runName) {
      await this.stop(runName).catch(() => null);
      await new Promise((done) => setTimeout(done, RESEND));
    }
  }

  // The run of this name has a result, or none.
  report(name) {
    if (this.state && this.data.runName === name) this.data.runState = "reported";
  }
}

// Finished runs, the last one first: the image with the outline of its mask, and the words. Each can be opened again.
export class History {
  // element: where they are shown; open: called with the chosen entry.
  constructor(element, open) {
    Object.assign(this, { element, open, strip: element.querySelector(".sp-strip") });
    this.replace(loadFromTab("history") ?? []);
  }

  // entry: { task, prompt, when, before, mask, movable, results, steps, name }
  add(entry) {
    this.strip.prepend(this.card(entry)); // the others stay where they are, one of them maybe with the focus
    this.keep([...this.entries, entry]);
  }

  replace(entries) {
    this.strip.replaceChildren(...entries.map((entry) => this.card(entry)).reverse());
    this.keep(entries);
  }

  keep(entries) {
    this.entries = entries.slice(-MAX_HISTORY);
    [...this.strip.children].slice(MAX_HISTORY).forEach((card) => card.remove());
    this.element.hidden = !this.entries.length;
    saveInTab("history", this.entries);
  }

  card(entry) {
    const time = new Date(entry.when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const label = `${TASKS[entry.task]}: ${entry.prompt || "no words"}, ${time}`;
    const button = thumbnail(entry.results[0].small, label, () => this.open(entry));
    if (entry.task === "edit" && entry.mask) {
      const { width, height } = maskSize(entry.before);
      button.append(maskOutline(unpack(entry.mask, width, height)));
    }
    const text = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });
    button.append(text("span", entry.prompt || `${TASKS[entry.task]}, no words`), text("time", time));
    return button;
  }
}

// "Select by prompt" and "Describe image": requests without a run. A mask that comes is painted like any other one, and
// only on what was asked about.
export class ImageQueries {
  constructor(pad) {
    this.pad = pad;
    this.pending = {}; // by task: what was asked, and is not yet answered
  }

  selectByPrompt() {
    this.ask("select", promptBox()?.value);
  }

  // The answer becomes the prompt.
  describe() {
    this.ask("describe");
  }

  ask(task, prompt = "") {
    this.pad.state.finishStroke();
    const question = `${this.pad.state.version} ${prompt}`;
    this.pad.say(ASKING);
    const pending = (this.pending[task] ??= []);
    if (pending.at(-1) === question) return;
    pending.push(question);
    this.pad.request(task);
  }

  get waits() {
    return Object.keys(this.pending).length > 0;
  }

  stopWaiting(sentence) {
    this.pending = {};
    this.pad.say(sentence);
  }

  // An answer; without a task where none will come.
  answer({ version, task, mask, caption, deleted, note }) {
    const { state, sent } = this.pad;
    if (task === "recognize") {
      if (note && sent.get(version)?.image === state.image) this.pad.sayOfImage(note);
      return;
    }
    // Answers come in the order of the questions, and only the one to the last question counts.
    if (this.pending[task]?.length > 1) return void this.pending[task].shift();
    this.stopWaiting("");
    if (deleted) return void this.pad.retry({ version, task });
    if (caption && sent.get(version)?.image === state.image) this.pad.changeWords(caption);
    if (!mask || version !== state.version) return;
    const { width, height } = state.mask;
    this.pad.changeMask(() => unpack(mask, width, height), true);
    this.pad.say(SELECTED);
  }
}
