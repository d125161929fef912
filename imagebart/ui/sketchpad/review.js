// A run shown over the image: its states while it goes on, which dissolve into each other; then before and after, its
// steps, its variants, and all of it once more as a replay.
import { fileUrl } from "./gradio.js";
import { createCanvas, loadBitmap } from "./images.js";
import { sliderPosition } from "./view.js";

const DISSOLVE = 180; // milliseconds from one state to the next
const REPLAY = 4000; // milliseconds of a replay
const MIN_PAUSE = 60; // milliseconds that a state of a replay is seen
const DISSOLVE_SHARE = 0.7; // of that time

const reducedMotion = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const nextFrame = () => new Promise(requestAnimationFrame);

export class Review {
  // parts: the elements, by name; onChange: called when something else is to be shown.
  constructor(parts, onChange) {
    Object.assign(this, { parts, onChange, request: 0, latest: 0, bitmap: null, run: null, variant: 0, step: 0 });
    // split: where before and after meet, a share of the image's width; previous: what the bitmap dissolves out of, since when, and how long that takes
    Object.assign(this, { split: 0, previous: null, since: 0, dissolve: DISSOLVE });
    // pinned: the slot of the film that was clicked while a run goes on; replaying: a replay; version, entry: of the mask, and
    // in the undo stack, that a finished run belongs to
    Object.assign(this, { pinned: null, replaying: null, version: null, entry: null });
    parts.steps.addEventListener("input", () => this.showStep(Number(parts.steps.value)));
    parts.slider.addEventListener("keydown", (event) => this.moveByKey(event));
  }

  get active() {
    return this.bitmap !== null;
  }

  get finished() {
    return this.active && this.run.results !== undefined;
  }

  // A message of a run that goes on: of each slot of the film, the last one is kept as a step.
  preview(message) {
    if (this.run?.run !== message.run) Object.assign(this, { run: { ...message, steps: [] }, variant: 0, pinned: null });
    const { images, slot, share, caption } = message;
    const steps = this.run.steps.filter((step) => step.slot !== slot);
    this.run.steps = [...steps, { slot, caption, share, shown: images }];
    this.updateFilm();
    if (this.pinned === null) this.show(images[0]);
  }

  // A finished run: { task, results, steps, … }. bitmap: its first result, where that is loaded already.
  finish(run, bitmap = null) {
    Object.assign(this, { run, split: 0, replaying: null });
    this.latest = ++this.request;
    if (!bitmap) return this.showVariant(0);
    Object.assign(this, { variant: 0, step: this.steps(0).length - 1 });
    return this.setBitmap(bitmap);
  }

  showVariant(variant) {
    this.variant = variant;
    this.showStep(this.steps().length - 1);
  }

  // The steps of a variant, the chosen one by default: previews show only one.
  steps(variant = this.variant) {
    return this.run.steps.filter(({ shown }) => shown[variant]);
  }

  // Where the file of a step is: the last one is the result, in full size.
  pathOf(step) {
    const steps = this.steps();
    return step >= steps.length - 1 ? this.run.results[this.variant].view : steps[step].shown[this.variant];
  }

  showStep(step) {
    this.replaying = null;
    this.step = Math.min(Math.max(step, 0), this.steps().length - 1);
    this.show(this.pathOf(this.step));
  }

  // A state of the film that was clicked.
  showState(slot) {
    if (this.run.results) return this.showStep(this.stepOf(slot));
    this.pinned = slot;
    return this.show(this.steps()[this.stepOf(slot)].shown[0]);
  }

  // The last step that belongs to a slot of the film, a preview only where there is no other; -1 where there is none.
  stepOf(slot) {
    const steps = this.steps();
    const last = steps.findLastIndex((step) => step.slot === slot && !step.preview);
    return last < 0 ? steps.findLastIndex((step) => step.slot === slot) : last;
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
      this.setBitmap(bitmap);
    } catch { // a preview that was deleted before a slow browser asked for it: the next one comes
      if (request === this.request && this.run?.results) this.onChange("deleted");
    }
  }

  setBitmap(bitmap, dissolve = DISSOLVE) {
    if (bitmap !== this.bitmap) Object.assign(this, { previous: this.bitmap, since: performance.now(), dissolve });
    this.bitmap = bitmap;
    this.update();
  }

  // The run once more, from the noise to the image. Whatever else is to be shown meanwhile ends it.
  async replay() {
    if (!this.finished) return;
    const replay = {};
    this.replaying = replay;
    this.latest = ++this.request;
    const paths = this.steps().map((_, step) => this.pathOf(step));
    const pause = Math.max(MIN_PAUSE, REPLAY / paths.length);
    const bitmaps = await Promise.all(paths.map((path) => loadBitmap(fileUrl(path)).catch(() => null)));
    for (const [step, bitmap] of bitmaps.entries()) {
      if (this.replaying !== replay) return;
      if (!bitmap) continue;
      this.step = step;
      this.setBitmap(bitmap, pause * DISSOLVE_SHARE);
      await Promise.all([wait(pause), nextFrame()]); // each state is seen, on a slow machine, too
    }
    if (this.replaying === replay) this.endReplay();
  }

  // What is kept or saved is the result, and no state on the way to it.
  endReplay() {
    if (this.replaying) this.showStep(this.steps().length - 1);
  }

  close() {
    this.latest = ++this.request;
    const { active, run } = this;
    Object.assign(this, { bitmap: null, previous: null, run: null, replaying: null });
    if (active || run) this.update();
    return active;
  }

  // What the canvas draws; null for the image itself. mix: how much of the bitmap is seen over the one before it.
  scene() {
    if (!this.active) return null;
    const mix = reducedMotion?.matches ? 1 : Math.min(1, (performance.now() - this.since) / this.dissolve);
    const { bitmap, previous } = this;
    return { bitmap, previous, mix, alone: this.run.task === "generate", split: this.finished ? this.split : 0 };
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
    const { bar, slider, steps, stepsRow, caption, save, variants, film, canvas } = this.parts;
    const { finished } = this;
    // What has the focus is about to be hidden.
    if (!finished && [bar, slider, stepsRow, film].some((part) => part.contains(document.activeElement))) {
      canvas.focus({ preventScroll: true });
    }
    bar.hidden = !finished;
    slider.hidden = !finished || this.run.task === "generate";
    slider.setAttribute("aria-valuenow", String(Math.round(100 * this.split)));
    steps.hidden = !finished;
    caption.setAttribute("aria-live", finished && !this.replaying ? "polite" : "off"); // states that pass are not read out
    if (finished) {
      const all = this.steps();
      steps.max = String(all.length - 1);
      steps.value = String(this.step);
      caption.textContent = all[this.step].caption;
      steps.setAttribute("aria-valuetext", caption.textContent);
      const result = this.run.results[this.variant];
      Object.assign(save, { href: fileUrl(result.path), download: `${this.run.name}-${result.number}.png` });
    }
    const results = finished ? this.run.results : [];
    variants.hidden = results.length < 2;
    fillStrip(variants, results.map(({ small }, i) => ({ path: small, label: `Variant ${i + 1}`, shown: i === this.variant })),
      (number) => this.showVariant(number));
    this.updateFilm();
    this.onChange();
  }

  // The noise, what each scale made of it, and the image, as thumbnails under the canvas.
  updateFilm() {
    const { film, caption } = this.parts;
    const states = this.film();
    const shown = states.find((state) => state.shown);
    if (!states.length) caption.textContent = "";
    else if (!this.finished && shown?.path) caption.textContent = shown.label;
    fillStrip(film, states, (slot) => this.showState(slot));
    for (const [i, { path, share }] of states.entries()) {
      const button = film.children[i];
      button.tabIndex = -1; // for keys there is the slider
      button.disabled = !path;
      button.dataset.state = !path ? "empty" : share < 1 ? "current" : "done";
      button.style.setProperty("--rest", `${100 * (1 - share)}%`);
    }
  }

  // The states of the film beside each other, as a PNG.
  async saveStrip() {
    const paths = this.film().map(({ path }) => path).filter(Boolean);
    const bitmaps = await Promise.all(paths.map((path) => loadBitmap(fileUrl(path))));
    const { naturalWidth: width, naturalHeight: height } = bitmaps[0];
    const strip = createCanvas(width * bitmaps.length, height);
    bitmaps.forEach((bitmap, i) => strip.getContext("2d").drawImage(bitmap, i * width, 0, width, height));
    Object.assign(document.createElement("a"), { href: strip.toDataURL(), download: `${this.run.name}-steps.png` }).click();
  }

  // Its states: { text, label, path (null: not there yet), share (of its tokens that are fixed), shown }.
  film() {
    if (!this.run) return [];
    const steps = this.steps();
    const current = this.finished ? this.step : this.pinned === null ? steps.length - 1 : this.stepOf(this.pinned);
    return this.run.film.map((text, slot) => {
      const number = this.stepOf(slot);
      const step = steps[number];
      if (!step) return { text, label: text, path: null, share: 0, shown: false };
      // A scale whose end was not sent is done when a later one has begun.
      const share = number < steps.length - 1 ? 1 : step.share ?? 1;
      return { text, label: step.caption, path: step.shown[this.variant], share, shown: number === current };
    });
  }
}

// All variants large, in the place of the canvas: arrows move (see `addRoving`), Enter or a click keeps, Escape closes.
export class VariantGrid {
  // keep: called with the number of the one that is chosen.
  constructor(dialog, keep) {
    Object.assign(this, { dialog, keep, tiles: dialog.querySelector(".sp-tiles") });
  }

  // results: of a run; shown: the number of the one that has the focus first.
  open(results, shown) {
    if (this.dialog.open) return;
    this.tiles.replaceChildren(...results.map(({ view, small }, i) => {
      const tile = thumbnail(view, `Keep variant ${i + 1}`, () => {
        this.dialog.close(); // the focus goes back to where it was
        this.keep(i);
      });
      tile.firstChild.style.backgroundImage = `url("${fileUrl(small)}")`; // until the large one is there
      return tile;
    }));
    this.dialog.show();
    this.tiles.children[shown].focus({ preventScroll: true });
  }
}

// Thumbnails in a strip, changed in place, so that they keep the focus. items: { path, label, shown, text (below the image) }.
const fillStrip = (strip, items, show) => {
  const key = items.map(({ text }) => text).join();
  if (strip.children.length !== items.length || strip.dataset.key !== key) {
    strip.dataset.key = key;
    strip.replaceChildren(...items.map(({ text }, i) => {
      const button = thumbnail(null, "", () => show(i));
      if (text) button.append(Object.assign(document.createElement("span"), { textContent: text }));
      return button;
    }));
  }
  for (const [i, { path, label, shown, text }] of items.entries()) {
    const button = strip.children[i];
    const [image, address] = [button.firstChild, path ? fileUrl(path) : ""];
    if ((image.getAttribute("src") ?? "") !== address) image.src = address;
    button.title = label;
    button.setAttribute("aria-label", text ? `${text}: ${label}` : label);
    button.setAttribute("aria-pressed", String(shown));
  }
};

// A button with a small image of a file on the server, or of none yet.
export const thumbnail = (path, label, onClick) => {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "sp-thumb", title: label });
  button.setAttribute("aria-label", label);
  button.append(Object.assign(new Image(), { alt: "", ...(path ? { src: fileUrl(path) } : {}) }));
  button.addEventListener("click", onClick);
  return button;
};
