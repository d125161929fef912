// A run in place, over the picture: noise, coarse, fine while it is drawn; then before and after, its steps, its variants.
import { addressOf, load } from "./pictures.js";
import { handle } from "./view.js";

export class Review {
  // parts: the elements, by name; changed: called when something else is to be shown.
  constructor(parts, changed) {
    Object.assign(this, { parts, changed, serial: 0, image: null, run: null, wipe: 0, variant: 0, step: 0, peeking: false });
    for (const link of [parts.save, parts.saveBefore]) draggable(link);
    parts.steps.addEventListener("input", () => this.look(Number(parts.steps.value)));
    parts.wipe.addEventListener("keydown", (event) => this.key(event));
  }

  get active() {
    return this.image !== null;
  }

  get finished() {
    return this.active && this.run.results !== undefined;
  }

  // A message of the run that goes on.
  watch(message) {
    this.run = message;
    if (message.images?.length) this.show(message.images[0]);
  }

  // A finished run: { task, results, steps, … }.
  finish(run, variant = 0) {
    this.run = run;
    this.wipe = 0;
    this.choose(variant);
  }

  choose(variant) {
    this.variant = variant;
    this.look(this.kept().length - 1);
  }

  // The steps that are kept of the chosen variant: previews show one alone.
  kept() {
    return this.run.steps.filter(({ shown }) => shown[this.variant]);
  }

  look(step) {
    const steps = this.kept();
    this.step = Math.min(Math.max(step, 0), steps.length - 1);
    this.show(this.last() ? this.run.results[this.variant].view : steps[this.step].shown[this.variant]);
  }

  last() {
    return this.step >= this.kept().length - 1;
  }

  async show(path) {
    const serial = ++this.serial;
    try {
      const image = await load(addressOf(path));
      if (serial !== this.serial) return; // another one was asked for meanwhile
      this.image = image;
      this.update();
    } catch { // a preview that was deleted before a slow browser asked for it: the next one comes
      if (serial === this.serial && this.run?.results) this.changed("gone");
    }
  }

  close() {
    this.serial += 1;
    const was = this.active;
    Object.assign(this, { image: null, run: null });
    if (was) this.update();
    return was;
  }

  // What `draw` needs; null where the picture itself is to be seen.
  scene() {
    if (!this.active || this.peeking) return null;
    return { image: this.image, whole: this.run.task === "generate", wipe: this.finished ? this.wipe : 0 };
  }

  move(share) {
    this.wipe = Math.min(1, Math.max(0, share));
    this.update();
  }

  // The wipe's handle on a canvas that was drawn.
  place(canvas) {
    if (!canvas.view || !canvas.size) return;
    const { left, top, height, knob } = handle(canvas.view, canvas.size, canvas.room(), this.wipe);
    const { style } = this.parts.wipe;
    Object.assign(style, { left: `${left}px`, top: `${top}px`, height: `${height}px` });
    style.setProperty("--knob", `${knob}px`);
  }

  key(event) {
    const step = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05, Home: -1, End: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(this.wipe + step);
  }

  update() {
    const { bar, wipe, steps, caption, save } = this.parts;
    const done = this.finished;
    bar.hidden = !done;
    wipe.hidden = !done || this.run.task === "generate";
    wipe.setAttribute("aria-valuenow", String(Math.round(100 * this.wipe)));
    if (done) {
      const kept = this.kept();
      steps.max = String(kept.length - 1);
      steps.value = String(this.step);
      caption.textContent = `Step ${this.step + 1} of ${kept.length} · ${kept[this.step].caption}`;
      steps.setAttribute("aria-valuetext", caption.textContent);
      const result = this.run.results[this.variant];
      Object.assign(save, { href: addressOf(result.path), download: `${this.run.name}-${result.number}.png` });
    }
    this.strip(done ? this.run.results : []);
    this.changed();
  }

  strip(results) {
    const { variants } = this.parts;
    variants.hidden = results.length < 2;
    const shown = results.map(({ small }) => small).join();
    if (variants.dataset.shown !== shown) {
      variants.dataset.shown = shown;
      variants.replaceChildren(...results.map(({ small }, i) => thumbnail(small, `Variant ${i + 1}`, () => this.choose(i))));
    }
    [...variants.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === this.variant)));
  }
}

// A link to a file that can be dragged out of the window, to a folder as well as to another page.
export const draggable = (link) => {
  link.addEventListener("dragstart", (event) => {
    const type = link.download.endsWith(".png") ? "image/png" : "application/octet-stream";
    event.dataTransfer.setData("DownloadURL", `${type}:${link.download}:${link.href}`);
  });
};

// A button with a small picture of a file on the server.
export const thumbnail = (path, label, click) => {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "sp-thumb", title: label });
  button.setAttribute("aria-label", label);
  button.append(Object.assign(new Image(), { src: addressOf(path), alt: "" }));
  button.addEventListener("click", click);
  return button;
};
