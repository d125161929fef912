// Runs: the state of the last one, and the history.
import { click } from "./gradio.js";
import { loadFromTab, saveInTab } from "./images.js";
import { unpack } from "./mask.js";
import { thumbnail } from "./review.js";
import { maskOutline } from "./view.js";

const RESEND = 1000; // milliseconds until Cancel is sent again
const MAX_HISTORY = 12;
const TASKS = { edit: "Edit", generate: "New image", vary: "Variation" };

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
    this.entries = loadFromTab("history") ?? [];
    this.strip.append(...this.entries.map((entry) => this.card(entry)).reverse());
    this.update();
  }

  // entry: { task, prompt, when, before, mask, movable, results, steps, name }. Whether it was saved for a reload.
  add(entry) {
    if (entry.run && this.entries.at(-1)?.run === entry.run) return true; // Gradio may tell twice of a run that ends at once
    this.entries.push(entry);
    this.strip.prepend(this.card(entry)); // the others stay where they are, one of them maybe with the focus
    if (this.entries.length > MAX_HISTORY) {
      this.entries.shift();
      this.strip.lastChild.remove();
    }
    return this.update();
  }

  update() {
    this.element.hidden = !this.entries.length;
    return saveInTab("history", this.entries);
  }

  card(entry) {
    const time = new Date(entry.when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const label = entry.prompt || `${TASKS[entry.task]}, no words`;
    const button = thumbnail(entry.results[0].small, `${label} ${time}`, () => this.open(entry));
    if (entry.task === "edit" && entry.mask) button.append(maskOutline(unpack(entry.mask, entry.before.mask_size)));
    const text = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });
    button.append(text("span", label), text("time", time));
    return button;
  }
}
