// Runs: the state of the last one, its previews and results over the image, the history; and what is asked of the model
// without a run: "Select by prompt" and "Describe image".
import { click, fileUrl, promptBox } from "./gradio.js";
import { loadBitmap, loadFromTab, saveInTab } from "./images.js";
import { bounds, pack, unpack } from "./mask.js";
import { sliderPosition } from "./view.js";

const RESEND = 1000; // milliseconds until Cancel is sent again
const MAX_HISTORY = 12;
const TASKS = { edit: "Edit", generate: "New image", vary: "Variation" };
const PROBE = 2000; // milliseconds between two checks whether the server is there
const ASKING = "Looking at the image …";
const SELECTED = "Found by your words. Correct it, or press Edit.";
const SELECTED_AND_EDITED = "Nothing was painted: your words said where.";
const SERVER_GONE = "The server does not answer. This page goes on by itself when it does.";

// Looks again and again whether the server is there, as long as somebody waits for it: Gradio does not tell them that it is
// gone. onGone: called with a sentence.
export const watchServer = async (waits, onGone) => {
  for (;;) {
    await new Promise((done) => setTimeout(done, PROBE));
    if (!waits()) return;
    const reply = await fetch(location.pathname, { method: "HEAD", cache: "no-store" }).catch(() => null);
    if (!waits()) return;
    if (!reply?.ok) return void onGone(SERVER_GONE);
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

// A run shown over the image: its previews while it goes on; then before and after, its steps, its variants.
export class Review {
  // parts: the elements, by name; onChange: called when something else is to be shown.
  constructor(parts, onChange) {
    Object.assign(this, { parts, onChange, request: 0, latest: 0, bitmap: null, run: null, variant: 0, step: 0 });
    // split: where before and after meet, a share of the image's width; showsBefore: while a key is held
    Object.assign(this, { split: 0, showsBefore: false });
    for (const link of [parts.save, parts.saveBefore]) makeDraggable(link);
    parts.steps.addEventListener("input", () => this.showStep(Number(parts.steps.value)));
    parts.slider.addEventListener("keydown", (event) => this.moveByKey(event));
  }

  get active() {
    return this.bitmap !== null;
  }

  get finished() {
    return this.active && this.run.results !== undefined;
  }

  // A message of a run that goes on.
  preview(message) {
    this.run = message;
    if (message.images?.length) this.show(message.images[0]);
  }

  // A finished run: { task, results, steps, … }. bitmap: its first result, where that is loaded already.
  finish(run, bitmap = null) {
    this.run = run;
    this.split = 0;
    this.latest = ++this.request;
    if (!bitmap) return this.showVariant(0);
    return Object.assign(this, { variant: 0, step: this.steps(0).length - 1, bitmap }).update();
  }

  showVariant(variant) {
    this.variant = variant;
    this.showStep(this.steps().length - 1);
  }

  // The steps of a variant, the chosen one by default: previews show only one.
  steps(variant = this.variant) {
    return this.run.steps.filter(({ shown }) => shown[variant]);
  }

  showStep(step) {
    const steps = this.steps();
    this.step = Math.min(Math.max(step, 0), steps.length - 1);
    this.show(this.isLastStep() ? this.run.results[this.variant].view : steps[this.step].shown[this.variant]);
  }

  isLastStep() {
    return this.step >= this.steps().length - 1;
  }

  async show(path) {
    const request = ++this.request;
    try {
      const bitmap = await loadBitmap(fileUrl(path));
      // A later one is shown, or none any more. Not the last one alone: on a slow line they come faster than they load.
      if (request <= this.latest) return;
      this.latest = request;
      this.bitmap = bitmap;
      this.update();
    } catch { // a preview that was deleted before a slow browser asked for it: the next one comes
      if (request === this.request && this.run?.results) this.onChange("deleted");
    }
  }

  close() {
    this.latest = ++this.request;
    const { active } = this;
    Object.assign(this, { bitmap: null, run: null });
    if (active) this.update();
    return active;
  }

  // What the canvas draws; null for the image itself.
  scene() {
    if (!this.active || this.showsBefore) return null;
    return { bitmap: this.bitmap, alone: this.run.task === "generate", split: this.finished ? this.split : 0 };
  }

  moveSlider(share) {
    this.split = Math.min(1, Math.max(0, share));
    this.update();
  }

  placeSlider(canvas) {
    if (!canvas.view || !canvas.size) return;
    const { left, top, height, knob } = sliderPosition(canvas.view, canvas.size, canvas.frameSize(), this.split);
    const { style } = this.parts.slider;
    Object.assign(style, { left: `${left}px`, top: `${top}px`, height: `${height}px` });
    style.setProperty("--knob", `${knob}px`);
  }

  moveByKey(event) {
    const step = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05, Home: -1, End: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.moveSlider(this.split + step);
  }

  update() {
    const { bar, slider, steps, caption, save, variants, film, canvas } = this.parts;
    const { finished } = this;
    // What has the focus is about to be hidden.
    if (!finished && [bar, slider, variants, film].some((part) => part.contains(document.activeElement))) {
      canvas.focus({ preventScroll: true });
    }
    bar.hidden = !finished;
    slider.hidden = !finished || this.run.task === "generate";
    slider.setAttribute("aria-valuenow", String(Math.round(100 * this.split)));
    if (finished) {
      const all = this.steps();
      steps.max = String(all.length - 1);
      steps.value = String(this.step);
      caption.textContent = `Step ${this.step + 1} of ${all.length} · ${all[this.step].caption}`;
      steps.setAttribute("aria-valuetext", caption.textContent);
      const result = this.run.results[this.variant];
      Object.assign(save, { href: fileUrl(result.path), download: `${this.run.name}-${result.number}.png` });
    }
    const results = finished ? this.run.results : [];
    this.fill(variants, results.map(({ small }, i) => ({
      path: small, label: `Variant ${i + 1}`, show: () => this.showVariant(i), shown: i === this.variant,
    })));
    // The noise, what each scale made of it, and the image, which the last scale made.
    const all = finished ? this.steps() : [];
    const scales = all.map((step, i) => [step, i]).filter(([{ preview }]) => !preview);
    this.fill(film, scales.map(([step, i]) => ({
      path: step.shown[this.variant], label: step.caption, show: () => this.showStep(i), shown: i === this.step,
    })));
    for (const button of film.children) button.tabIndex = -1; // for keys there is the slider
    this.onChange();
  }

  // A strip of thumbnails, hidden if there are less than two.
  fill(strip, items) {
    strip.hidden = items.length < 2;
    const paths = items.map(({ path }) => path).join();
    if (strip.dataset.paths !== paths) {
      strip.dataset.paths = paths;
      strip.replaceChildren(...items.map(({ path, label, show }) => thumbnail(path, label, show)));
    }
    [...strip.children].forEach((button, i) => button.setAttribute("aria-pressed", String(items[i].shown)));
  }
}

// A link to a file that can be dragged out of the window, to a folder as well as to another page.
const makeDraggable = (link) => {
  link.addEventListener("dragstart", (event) => {
    const type = link.download.endsWith(".png") ? "image/png" : "application/octet-stream";
    event.dataTransfer.setData("DownloadURL", `${type}:${link.download}:${link.href}`);
  });
};

// A button with a small image of a file on the server.
export const thumbnail = (path, label, onClick) => {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "sp-thumb", title: label });
  button.setAttribute("aria-label", label);
  button.append(Object.assign(new Image(), { src: fileUrl(path), alt: "" }));
  button.addEventListener("click", onClick);
  return button;
};

// Finished runs as thumbnails; each can be opened again, with its image, mask and prompt.
export class History {
  // element: where they are shown; open: called with the chosen entry.
  constructor(element, open) {
    Object.assign(this, { element, open, entries: loadFromTab("history") ?? [] });
    this.show();
  }

  // entry: { task, prompt, when, before, mask, results, steps, name }
  add(entry) {
    this.entries = [...this.entries, entry].slice(-MAX_HISTORY);
    saveInTab("history", this.entries);
    this.show();
  }

  show() {
    this.element.hidden = !this.entries.length;
    const items = [...this.entries].reverse().map((entry) => {
      const time = new Date(entry.when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      const label = `${TASKS[entry.task]}: ${entry.prompt || "no words"}, ${time}`;
      const button = thumbnail(entry.results[0].small, label, () => this.open(entry));
      const text = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });
      button.append(text("span", entry.prompt || TASKS[entry.task]), text("time", time));
      return button;
    });
    this.element.querySelector(".sp-strip").replaceChildren(...items);
  }
}

// "Select by prompt" and "Describe image": requests without a run. A mask that comes is painted like any other one, and
// only on what was asked about.
export class ImageQueries {
  constructor(pad) {
    this.pad = pad;
    this.editVersion = null; // the version on which Edit waits for a mask
    this.requests = 0;
    this.pending = {}; // by task: what was asked, and is not yet answered
    const { image, mask, selected_by: prompt } = loadFromTab("now") ?? {};
    this.selected = prompt ? { prompt, image: image.path, mask } : null;
  }

  selectByPrompt(editVersion = null) {
    this.editVersion = editVersion;
    this.ask("select", promptBox()?.value);
  }

  // The answer becomes the prompt.
  describe() {
    this.ask("describe");
  }

  // Edit with a prompt and without a mask: first the mask is asked for. False where there is a mask, or no prompt.
  selectBeforeEdit() {
    const { mask, version } = this.pad.state;
    if (!mask || bounds(mask) || !promptBox()?.value.trim()) return false;
    this.selectByPrompt(version);
    return true;
  }

  ask(task, prompt = "") {
    this.pad.state.finishStroke();
    const question = `${this.pad.state.version} ${prompt}`;
    this.pad.say(ASKING);
    const pending = (this.pending[task] ??= []);
    if (pending.at(-1) === question) return;
    pending.push(question);
    this.pad.request(task);
    const request = ++this.requests;
    watchServer(() => request === this.requests, (sentence) => this.stopWaiting(sentence));
  }

  stopWaiting(sentence) {
    this.requests += 1;
    this.pending = {};
    this.pad.say(sentence);
  }

  // An answer; without a task where none will come.
  answer({ version, task, mask, selected_by: prompt, caption, deleted }) {
    const { state, sent } = this.pad;
    // Answers come in the order of the questions, and only the one to the last question counts.
    if (this.pending[task]?.length > 1) return void this.pending[task].shift();
    this.stopWaiting("");
    const edits = task === "select" && this.editVersion === version;
    if (edits || !task) this.editVersion = null;
    if (deleted) return void this.pad.retry({ version, task: edits ? "edit" : task });
    if (caption && sent.get(version)?.image === state.image) this.pad.changeWords(caption);
    if (!mask || version !== state.version) return;
    const { width, height } = state.mask;
    this.pad.changeMask(() => {
      const selected = unpack(mask, width, height);
      this.selected = { prompt, image: state.image.path, mask: pack(selected) };
      return selected;
    });
    if (edits) click("edit");
    this.pad.say(edits ? SELECTED_AND_EDITED : SELECTED);
  }

  // The prompt that selected a packed mask; null where somebody has painted it, or on another image.
  promptOf(image, mask) {
    return this.selected?.mask === mask && this.selected.image === image?.path ? this.selected.prompt : null;
  }
}
