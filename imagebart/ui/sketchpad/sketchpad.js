// The sketchpad: puts its parts together. Loaded by Gradio once its markup is there, see sketchpad.py.
import { ACTS } from "./acts.js";
import { hush, press, whenFree, whenThere, write } from "./around.js";
import { Asked } from "./asked.js";
import { pack, unpack } from "./bitmap.js";
import { Canvas } from "./canvas.js";
import { furnish, layExamples } from "./furniture.js";
import { History } from "./history.js";
import { listen } from "./listening.js";
import { Looking } from "./looking.js";
import { MADE, missing } from "./masks.js";
import { Opening } from "./opening.js";
import { addressOf, decode } from "./pictures.js";
import { Review } from "./review.js";
import { Sharing } from "./sharing.js";
import { maskSize, State } from "./state.js";
import { remember, recall } from "./store.js";

const QUIET = 120; // milliseconds without a change before the server is asked for the grid
const MOST_SENT = 24;

export class Sketchpad {
  // What Gradio hands over: the element, the values that events send, and ways to tell and ask the server.
  constructor(element, props, trigger, server, upload) {
    Object.assign(this, { element, props, trigger, sent: new Map(), lastMask: null });
    this.examples = props.examples; // of the model that is shown
    this.parts = Object.fromEntries([...element.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.state = new State(() => this.changed());
    this.review = new Review(this.parts, (why) => this.reviewed(why));
    this.canvas = new Canvas(this.parts.canvas, this.parts.frame, this.state, this.review, () => this.settle());
    this.opening = new Opening({ server, upload, state: this.state, say: (sentence) => this.say(sentence) });
    this.server = server;
    this.sharing = new Sharing(this);
    this.looking = new Looking(this);
    this.asked = new Asked(server.stop);
    this.canvas.drawn = () => this.review.place(this.canvas);
    element.sketchpad = this;
    furnish(this);
    listen(this);
    whenThere("history", (place) => (this.history = new History(place, (entry) => this.back(entry))));
    // Gradio takes over values only once the element is wholly there.
    setTimeout(() => this.start());
  }

  async start() {
    if (await this.sharing.open()) return;
    const [refused, words] = [this.parts.note.textContent, recall("words")];
    if (this.opening.again()) {
      if (words !== null) whenThere("prompt", () => write(words));
    } else if (this.examples.length) this.example(this.examples[0]);
    else this.changed();
    this.say(refused);
  }

  // Every change of the picture or the mask comes here, at once.
  changed() {
    this.say(""); // what was said was of what was there before
    const { picture, mask, version } = this.state;
    const [size, painted] = [[picture?.width ?? 0, picture?.height ?? 0], mask ? pack(mask) : ""];
    const sent = { picture: picture?.path ?? null, size, mask: painted, of: this.looking.of(picture, painted), version };
    this.props.value = sent;
    this.sent.set(version, { picture, mask: sent.mask });
    this.sent.delete(version - MOST_SENT);
    remember("now", { ...sent, picture });
    if (!this.review.finished || this.review.version !== version) this.review.close();
    this.canvas.grid = null;
    this.element.dataset.version = String(version);
    clearTimeout(this.quiet);
    if (sent.mask) this.quiet = setTimeout(() => this.trigger("input"), QUIET);
    else this.tell("Nothing is painted yet", "");
    this.see(picture);
    this.button("undo").disabled = !this.state.trail.back.length;
    this.button("redo").disabled = !this.state.trail.forward.length;
    this.canvas.show();
  }

  // The picture's image; whoever paints need not wait for it.
  async see(picture) {
    if (!picture) return;
    const { width, height } = this.state.mask;
    this.canvas.place({ width, height });
    if (this.seen === picture) return;
    this.seen = picture;
    this.canvas.picture = null;
    document.getElementById("facts").textContent = `${picture.width} × ${picture.height} pixels`;
    const image = await this.opening.image(picture).catch(() => null);
    if (this.seen !== picture) return; // another one came meanwhile
    this.canvas.picture = image;
    this.canvas.show();
    this.element.dataset.shown = picture.path;
    if (!this.exampleOf(picture)) this.opening.keep(picture);
  }

  // The server's answer about the grid; one about an older mask is dropped.
  grid({ version, box, side, cells }) {
    if (version !== this.state.version) return;
    const count = [...cells].filter((cell) => cell === "1").length;
    const scale = this.state.mask.width / this.state.picture.width;
    const place = { left: box[0] * scale, top: box[1] * scale, side: box[2] * scale };
    this.canvas.grid = this.parts.showGrid.checked ? { box: place, side, cells } : null;
    this.answered = { version, box, side, cells };
    this.tell(`${count} of ${side * side} tokens will be redrawn`, cells);
    this.canvas.show();
  }

  tell(line, cells) {
    const place = document.getElementById("grid-line");
    if (place.textContent !== line) place.textContent = line;
    this.element.dataset.cells = cells;
    this.element.dataset.told = String(this.state.version);
  }

  // A message of a run. Its pictures are shown in place only where nothing has changed since it was asked for.
  run(message) {
    if (message.over || message.gone || message.results) this.asked.told(message.over ?? message.run);
    if (message.gone) return void this.again(message);
    if (message.over) return void (this.review.finished || this.review.close());
    const asked = this.sent.get(message.version);
    if (message.results) {
      const entry = { ...message, when: Date.now(), before: asked?.picture ?? null, mask: asked?.mask ?? "" };
      this.history?.add(entry);
      if (message.task === "edit" && asked?.mask) this.lastMask = unpack(asked.mask, ...Object.values(maskSize(asked.picture)));
      if (message.version === this.state.version) this.finish(entry);
      else this.say("The picture or the mask has changed since this run was begun: its result lies in the history.");
    } else if (message.version === this.state.version) this.review.watch(message);
  }

  finish(entry, variant = 0) {
    this.review.version = this.state.version;
    this.review.finish(entry, variant);
  }

  // The server has forgotten the picture: it gets it again, and what was asked for begins anew.
  async again({ task, version }) {
    if (version !== this.state.version || !(await this.opening.found(this.state.picture))) return;
    if (["find", "describe"].includes(task)) this.act(task);
    else whenFree(task, () => version === this.state.version && press(task));
  }

  reviewed(why) {
    if (why === "gone") this.say("This picture is no longer kept: pictures are forgotten after an hour.");
    const before = this.review.run?.before;
    this.parts.saveBefore.hidden = !before;
    if (before) Object.assign(this.parts.saveBefore, { href: addressOf(before.path), download: `${this.review.run.name}-before.png` });
    this.element.dataset.review = this.review.finished ? "finished" : this.review.active ? "running" : "";
    this.canvas.show();
  }

  // What is shown becomes the picture, before anything is painted on it: so what is painted on is what is redrawn.
  // False where that takes a moment, and painting has to wait.
  settle() {
    const { review } = this;
    const waits = review.finished && !review.last();
    if (review.finished) this.keep();
    else review.close();
    return !waits;
  }

  // What is shown is what is looked at. False where that takes a moment.
  shown() {
    return !this.review.finished || this.settle();
  }

  // The result becomes the picture. An earlier step of its run has to be put together first.
  async keep() {
    const { review, state } = this;
    if (!review.finished) return;
    const { run, variant } = review;
    const mask = run.task === "vary" ? state.mask : null;
    if (review.last()) {
      state.open(run.results[variant], mask);
      return;
    }
    const { parts } = review.kept()[review.step];
    const [version, asked] = [state.version, { base: run.before?.path ?? null, box: run.box, part: parts[variant] }];
    const { picture, error } = await this.server.compose(asked).catch(() => ({ error: "The server did not answer." }));
    if (error) this.say(error);
    else if (version === state.version) state.open(picture, mask);
  }

  discard() {
    return this.review.close();
  }

  // A run of the past: its picture, mask and words, and what came of it.
  back(entry) {
    write(entry.prompt ?? "");
    if (entry.before) this.opening.place(entry.before, entry.mask);
    this.finish(entry);
  }

  example(example) {
    if (example.prompt) whenThere("prompt", () => write(example.prompt));
    this.opening.place(example.picture, example.mask);
  }

  exampleOf(picture) {
    return this.examples.find((example) => example.picture.path === picture?.path);
  }

  // Another model's examples. What a person has opened, painted or drawn stays.
  switched({ examples }) {
    const { picture, mask } = this.state;
    const before = this.exampleOf(picture);
    const touched = before && pack(mask) !== pack(unpack(before.mask, mask.width, mask.height));
    this.examples = examples;
    layExamples(this);
    if (!examples.length || this.exampleOf(picture) || this.review.active || this.review.finished) return;
    if (!picture || (before && !touched)) this.example(examples[0]);
  }

  async open(file) {
    const answer = await this.opening.file(file);
    if (answer) hush();
    if (answer?.made) this.trigger("upload");
  }

  async loadMask(file) {
    const { picture, mask } = this.state;
    if (!picture) return;
    const address = URL.createObjectURL(file);
    try {
      const loaded = await decode(address, { width: mask.width, height: mask.height });
      if (this.state.picture !== picture) return;
      if (loaded) this.paint(() => loaded);
      else this.say("The mask and the picture have different shapes; give both the same shape.");
    } catch {
      this.say("This file is no picture that the browser can read; choose a PNG, JPEG or WebP file.");
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  // make: from the mask to another one.
  paint(make) {
    if (!this.state.mask) return this.say("There is no picture yet. Pick an example or upload one.");
    return this.settle() && this.state.paint(make(this.state.mask));
  }

  make(action) {
    this.paint((mask) => {
      const lacking = missing(action, mask);
      this.say(lacking);
      return lacking ? mask : MADE[action](mask);
    });
  }

  useLastMask() {
    const { lastMask, state } = this;
    if (!lastMask || !state.mask) return this.say("There is no last mask yet: it is the one of the last edit.");
    const { width, height } = state.mask;
    if (width !== lastMask.width || height !== lastMask.height) {
      return this.say("The last mask belongs to a picture of another size.");
    }
    return this.paint(() => lastMask);
  }

  async film(suffix) {
    const { run, variant } = this.review;
    const shown = this.review.kept().map((step) => step.shown[variant]);
    const { path, error } = await this.server.film({ shown, name: run.name, suffix });
    if (error) this.say(error);
    else Object.assign(document.createElement("a"), { href: addressOf(path), download: `${run.name}${suffix}` }).click();
  }

  say(sentence) {
    this.parts.note.textContent = sentence ?? "";
  }

  button(action) {
    return this.element.querySelector(`[data-do="${action}"]`);
  }

  tool(name) {
    this.canvas.tool = name;
    for (const button of this.element.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
  }

  size(change) {
    const { size } = this.parts;
    size.value = String(Number(size.value) + change);
    this.canvas.share = Number(size.value) / 100;
  }

  help(show = this.parts.help.hidden) {
    this.parts.help.hidden = !show;
    if (show) this.parts.help.focus();
  }

  act(action) {
    ACTS[action](this);
  }

  peek(on) {
    this.review.peeking = on;
    this.canvas.show();
  }
}
