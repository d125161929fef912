// The sketchpad: puts its parts together, and says what happens between them. Started by Gradio once its markup is there,
// see __init__.py.
import { answering, click, describePage, fileUrl, hideMessages, whenPresent } from "./gradio.js";
import { ImageLoader, loadBitmap, loadFromTab, saveInTab, Sharing, storeCopy } from "./images.js";
import { execute, Gestures, listen } from "./input.js";
import { bounds, contour, MASK_COMMANDS, pack, preset, unpack } from "./mask.js";
import { MODES, Modes } from "./modes.js";
import { Prompt } from "./prompt.js";
import { Fit, Questions } from "./questions.js";
import { Review, thumbnail, VariantGrid } from "./review.js";
import { History, RunState } from "./run.js";
import { State } from "./state.js";
import { Canvas } from "./view.js";

const ASKED_WITH = ["model", "choice", "exact", "context"]; // the controls that what will change depends on
const TYPING_PAUSE = 700; // milliseconds without a key that end a step of typing, for undo
const REFLEX = 250; // milliseconds in which nobody can have meant a button that took the place of another one
const NOTHING_PAINTED = "Nothing is painted yet";
const FITTING = "Finding what will change …";
const NOT_SAVED = "Your browser keeps nothing more for this page: when it is reloaded, your image, mask and history are lost.";
const OUTDATED = "This page was updated while you had it open: reload it to go on.";

export class Sketchpad {
  // What Gradio passes: the element, the value that a run gets, and the ways to call the server and to send it a file.
  constructor(element, props, server, upload) {
    // A page that is older than its server comes anew, with what is on it; not during a run, which may have a result.
    const renew = () => (!this.runState.state && this.sync() ? location.reload() : this.say(OUTDATED));
    Object.assign(this, { element, props, server: answering(server, () => this.state.settled().then(renew)) });
    this.examples = props.examples; // of the model that is chosen
    this.controls = props.controls; // their values by name
    this.discarded = null; // a result that Redo shows again: its run, and the state that it belongs to
    this.parts = Object.fromEntries([...element.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.prompt = new Prompt({
      check: (prompt) => this.server.check_prompt({ prompt, model: this.controls.model }),
      change: (words) => this.state.changeWords(words),
      onChange: () => this.promptChanged(),
    });
    this.state = new State((onlyWords) => this.changed(onlyWords), () => this.gestures.finish(), this.prompt);
    this.review = new Review(this.parts, (why) => this.reviewChanged(why));
    this.variantGrid = new VariantGrid(this.parts.compare, (number) => {
      this.review.showVariant(number);
      this.keep();
      this.canvas.element.focus({ preventScroll: true });
    });
    this.canvas = new Canvas({
      element: this.parts.canvas,
      frame: this.parts.frame,
      state: this.state,
      review: this.review,
      beforeStroke: () => this.beforePainting(),
      showsExample: () => this.showsExample(),
      afterRender: () => this.review.placeSlider(this.canvas),
    });
    this.gestures = new Gestures(this.canvas);
    this.loader = new ImageLoader({ server: this.server, upload, maxBytes: props.max_file, state: this.state, say: (sentence) => this.say(sentence) });
    this.sharing = new Sharing(this);
    this.questions = new Questions(this);
    this.fit = new Fit({
      words: () => this.prompt.read(),
      ask: () => this.questions.fit(),
      show: (answer) => this.showFit(answer),
    });
    this.modes = new Modes(this);
    this.runState = new RunState(server.stop);
    element.sketchpad = this;
    this.showExamples();
    this.changeBrush(0, 0);
    listen(this);
    this.listenToPage();
    describePage(() => this.invitation());
    whenPresent("history", (place) => (this.history = new History(place, (entry) => this.openRun(entry))));
    // Gradio takes over values only once the element is wholly there.
    setTimeout(() => this.start());
  }

  // The label of the main button, and what a person does next.
  invitation() {
    const whole = !document.getElementById("edit") || document.getElementById("vary"); // a model that draws layers lacks it
    if (!whole && !["fill", "remove"].includes(this.modes.chosen)) this.modes.choose("fill");
    const { verb, hint } = MODES[this.modes.chosen];
    if (this.review.finished) return { label: "Again", hint: "Keep it, or paint on." };
    if (!this.state.image) return { label: verb, hint: "Open an image, or choose an example." };
    const complete = this.modes.chosen === "fill" && this.props.value.mask && this.prompt.read();
    return { label: verb, hint: complete ? "Edit changes what is outlined." : hint };
  }

  showExamples() {
    this.element.querySelector(".sp-examples").replaceChildren(
      ...this.examples.map((example) => thumbnail(example.small, example.caption, () => this.openExample(example))));
  }

  listenToPage() {
    imagebart.on("run", (message) => this.runMessage(message));
    imagebart.on("run_over", () => this.runState.end());
    imagebart.on("random_prompt", ({ words }) => this.changeWords(words));
    imagebart.on("controls", (controls) => {
      const before = this.controls;
      this.controls = controls;
      saveInTab("controls", controls);
      if (ASKED_WITH.some((name) => String(controls[name]) !== String(before[name]))) this.fit.change();
    });
    imagebart.on("examples", (message) => this.state.onArrival(() => this.switchExamples(message)));
    document.addEventListener("click", ({ target }) => {
      const again = target.closest?.("[data-again]");
      if (again) this.tryFour(again.dataset.again);
      else if (target.closest?.("#move-mask")) this.moveMask();
    });
    // Before Gradio gets the click.
    document.addEventListener("click", (event) => {
      const pressed = event.target.closest?.("#edit, #vary, #generate, #cancel, #keep, #discard")?.id;
      if (pressed === "edit" && this.modes.chosen === "vary") {
        event.stopPropagation();
        click("vary");
      } else if (["cancel", "keep", "discard"].includes(pressed)) execute(this, pressed);
      else if (pressed && (!this.runState.isFree(pressed) || !this.canStart(pressed))) event.stopPropagation();
      else if (pressed) this.startRun();
    }, true);
  }

  startRun() {
    this.runState.start();
    this.changeButtons();
    this.sayOfImage("");
    const { mask, movable } = this.props.value;
    // Of the mode Background, the server finds the mask.
    this.sent = { image: this.state.image, mask: this.modes.chosen === "background" ? "" : mask, movable };
  }

  // Other buttons come: what is pressed at this moment was meant for those before.
  changeButtons() {
    const { dataset } = document.documentElement;
    dataset.fresh = "";
    clearTimeout(this.freshTimer);
    this.freshTimer = setTimeout(() => delete dataset.fresh, REFLEX);
  }

  // A pause ends a step of typing.
  promptChanged() {
    clearTimeout(this.typingTimer);
    this.typingTimer = setTimeout(() => this.state.noteWords(), TYPING_PAUSE);
    this.fit.changeWords();
  }

  // Words that are not the person's own; theirs come back with Undo.
  changeWords(words) {
    const before = this.prompt.read();
    if (words === before) return;
    this.state.changeWords(words);
    if (before) this.say("Undo brings back your own words.");
  }

  // Whether a run starts now. A result that is shown is what is edited; the same task once more starts from the same image.
  canStart(task) {
    this.say("");
    if (task === "generate") return true;
    this.gestures.finish();
    if (!this.review.finished || this.review.run.task === task) return true;
    const kept = this.keep();
    if (this.review.finished) kept.then(() => this.review.finished || click(task));
    return !this.review.finished;
  }

  // A run that missed what the words ask for, once more: four images, the best first.
  tryFour(task) {
    for (const box of [...document.querySelectorAll("#how-many input, #best-first input")].slice(-2)) {
      if (!box.checked) box.click();
    }
    setTimeout(() => click(task)); // when Gradio has got both
  }

  // To the place that the words are about.
  moveMask() {
    const mask = unpack(this.fitted.elsewhere, this.state.mask);
    this.discard();
    this.changeMask(() => mask, true);
  }

  // With what the page's address holds, what was there before a reload, or the first example.
  async start() {
    const opened = await this.sharing.openLink();
    const refused = this.parts.note.textContent;
    if (!opened && !this.loader.restore()) {
      if (this.examples.length) this.openExample(this.examples[0]);
      else this.changed();
    }
    if (!opened) this.say(refused);
    this.started = true;
    if (!opened) this.restoreSettings(loadFromTab("controls"));
  }

  // Those of before a reload; of another model, once it is there.
  restoreSettings(saved) {
    if (!saved) return;
    const restore = () => whenPresent("channel-open_link", () => imagebart.send("open_link", { ...saved, reloaded: true }));
    if (saved.model === this.controls.model) return void restore();
    this.restoreLater = restore;
    whenPresent("model", (part) => {
      const list = part.querySelector("select");
      if (list) Object.assign(list, { value: saved.model }).dispatchEvent(new Event("change"));
    });
  }

  // Called at once after every change of the image or the mask.
  changed(onlyWords = false) {
    const { image, version, current, future } = this.state;
    if (!future.length && this.discarded?.of !== current) this.discarded = null; // something else came after it
    this.showSteps();
    if (onlyWords) return;
    this.say(""); // what was said was about what was there before
    if (this.started) hideMessages("progress");
    if (image?.path !== this.noted) this.sayOfImage("");
    this.warnUnlessSaved(this.sync());
    if (!this.review.finished || this.review.version !== version) this.review.close();
    this.canvas.running = null;
    this.fit.change();
    this.showImage(image);
    this.canvas.requestRender();
  }

  // What every event sends. Whether it was saved for a reload.
  sync() {
    const { image, mask, version, movable } = this.state;
    const { chosen: mode } = this.modes;
    const packed = mask ? pack(mask) : "";
    const { path = null, view = null } = image ?? {};
    this.props.value = { image: path, view, mask: packed, movable, mode, version };
    return saveInTab("now", { ...this.props.value, image });
  }

  // Says once what a reload will lose, when there is something to lose.
  warnUnlessSaved(saved) {
    if (saved || !this.started || this.warned) return;
    this.warned = true;
    this.say(NOT_SAVED);
  }

  // Loads the image's bitmap; painting need not wait for it.
  async showImage(image) {
    if (!image) return;
    const { width, height } = this.state.mask;
    this.canvas.setSize({ width, height });
    if (this.shownImage === image) return;
    this.shownImage = image;
    this.canvas.setBitmap(null);
    document.getElementById("image-size").textContent = `${image.width} × ${image.height} pixels`;
    const bitmap = await loadBitmap(fileUrl(image.view)).catch(() => null);
    if (this.shownImage !== image) return; // another one came meanwhile
    this.canvas.setBitmap(bitmap);
    this.element.dataset.shown = image.path;
    if (!this.exampleOf(image)) storeCopy(image.path).catch(() => null);
  }

  // An answer: packed masks of what Edit will change and of where the words belong; the share of the image, in percent.
  showFit(answer) {
    this.fitted = answer;
    this.canvas.fitted = answer?.mask ? contour(unpack(answer.mask, this.state.mask)) : null;
    this.element.dataset.fit = answer ? "known" : "asked";
    this.canvas.requestRender();
    // To move the mask, where the words are about another place than the one that was painted.
    whenPresent("elsewhere", (offer) => (offer.hidden = !this.fitted?.elsewhere));
    const { props, parts: { fitStatus } } = this;
    const nothing = this.modes.chosen === "vary" ? "All of the image will change" : props.value.mask ? "" : NOTHING_PAINTED;
    const line = answer ? (answer.mask ? `${answer.share} % will change` : nothing) : FITTING;
    // What was said before stays until there is something new.
    if ((answer || fitStatus.textContent === NOTHING_PAINTED) && fitStatus.textContent !== line) fitStatus.textContent = line;
  }

  // A message of a run. Its images are shown in place only where nothing has changed since it was started.
  async runMessage(message) {
    if (message.ended || message.deleted || message.results) this.runState.report(message.ended ?? message.run);
    const { state } = this;
    const current = message.version === state.version;
    if (message.deleted || message.ended || message.results) this.canvas.running = null;
    else if (current && message.mask) this.canvas.running = contour(unpack(message.mask, state.mask));
    if (message.deleted) return void this.retry(message);
    if (message.ended) return void (this.review.finished || this.review.close());
    if (!message.results) {
      if (current && !state.stroke) this.review.preview(message);
      return;
    }
    const { sent } = this;
    // Where nobody painted it, the mask is what the run has changed.
    const found = message.mask && (!sent.mask || sent.movable);
    const [mask, movable] = found ? [message.mask, true] : [sent.mask, sent.movable];
    const entry = { ...message, when: Date.now(), before: sent.image, mask, movable };
    this.warnUnlessSaved(this.history?.add(entry));
    // Loaded before it is shown, so that nothing is begun on the image that it replaces in between.
    const files = [entry.results[0].view, ...entry.results.map(({ small }) => small)];
    const [bitmap] = await Promise.all(files.map((path) => loadBitmap(fileUrl(path)).catch(() => null)));
    state.onArrival(() => {
      if (message.version === state.version) this.finish(entry, bitmap);
      else this.say("The image or the mask has changed since this run started: its result is in the history.");
    });
  }

  finish(entry, bitmap = null) {
    this.state.noteWords();
    Object.assign(this.review, { version: this.state.version, entry: this.state.current });
    this.review.finish(entry, bitmap);
  }

  // The last step: words that were written since a result is shown; then the result; then what was there before it.
  undo() {
    const { review, state } = this;
    state.noteWords();
    if (review.finished && review.entry === state.current) this.discard();
    else state.undo();
  }

  // Whether there are any, before and after; a result is one.
  showSteps() {
    const { parts, discarded, review: { finished }, state: { past, future, current } } = this;
    parts.undo.disabled = !finished && !past.length;
    parts.redo.disabled = finished || (!future.length && discarded?.of !== current);
  }

  redo() {
    const { discarded, review, state } = this;
    state.noteWords();
    if (discarded?.of === state.current && !review.active) this.finish(discarded.run);
    else state.redo();
  }

  // The result is no longer shown; Redo brings it back.
  discard() {
    const { review, state } = this;
    if (!review.finished) return;
    this.discarded = { run: review.run, of: state.current };
    review.close();
    hideMessages("progress");
  }

  // The server has deleted the image: it gets it again, and then the same request.
  async retry({ task, version }) {
    if (version !== this.state.version || !(await this.loader.ensureOnServer(this.state.image))) return;
    click(task); // once the run that failed is over
  }

  reviewChanged(why) {
    if (why === "deleted") this.say("This image is no longer on the server: images are deleted after an hour.");
    const { run, finished, active } = this.review;
    const { saveBefore } = this.parts;
    saveBefore.hidden = !run?.before;
    if (run?.before) Object.assign(saveBefore, { href: fileUrl(run.before.path), download: `${run.name}-before.png` });
    if (!finished) this.parts.compare.close();
    this.showSteps();
    const shown = finished ? "finished" : active ? "running" : "";
    if (finished && this.element.dataset.review !== shown) this.changeButtons();
    this.element.dataset.review = document.documentElement.dataset.review = shown;
    this.canvas.requestRender();
  }

  // A result that is shown becomes the image, so that what is painted on is what is regenerated. False where that takes a
  // moment, and painting has to wait.
  beforePainting() {
    if (!this.canvas.showsMask) this.modes.choose("fill");
    if (!this.review.finished) this.review.close();
    return this.keepAtOnce();
  }

  keepAtOnce() {
    this.review.endReplay();
    const atOnce = !this.review.finished || this.review.isLastStep();
    this.keep();
    return atOnce;
  }

  // The result becomes the image. An earlier step of its run has to be composed first.
  async keep() {
    const { review, state } = this;
    if (!review.finished) return;
    review.endReplay();
    const { run, variant } = review;
    const painted = run.task === "vary" ? [state.mask, null, state.movable] : [];
    if (review.isLastStep()) return void state.open(run.results[variant], ...painted);
    const { parts } = review.steps()[review.step];
    const { version } = state;
    const step = { base: run.before?.path ?? null, box: run.box, part: parts[variant] };
    const { image, error } = await this.server.compose(step);
    if (error) this.say(error);
    else state.onArrival(() => version === state.version && state.open(image, ...painted));
  }

  // A run of the history: its image, mask and prompt, and its result.
  openRun(entry) {
    const words = this.prompt.read() === null ? null : entry.prompt ?? "";
    if (entry.before) this.loader.open(entry.before, entry.mask, words, entry.movable === true);
    else if (words !== null) this.state.changeWords(words);
    this.finish(entry);
    scrollTo(0, 0); // to where it is seen
  }

  openExample(example) {
    this.loader.open(example.image, example.mask, example.prompt || null);
  }

  exampleOf(image) {
    return this.examples.find((example) => example.image.path === image?.path);
  }

  showsExample() {
    return this.exampleOf(this.state.image)?.mask === this.props.value.mask;
  }

  // Another model's examples. What a person has opened, painted or generated stays.
  switchExamples({ examples }) {
    const untouched = this.showsExample();
    this.examples = examples;
    this.showExamples();
    this.restoreLater?.();
    this.restoreLater = null;
    this.recognizeImage();
    if (!examples.length || this.exampleOf(this.state.image) || this.review.active || this.review.finished) return;
    if (!this.state.image || untouched) this.openExample(examples[0]);
  }

  async openFile(file) {
    const answer = await this.loader.openFile(file);
    if (answer?.made) imagebart.send("restore_settings", this.props.value);
    if (answer) this.recognizeImage();
  }

  // Asks whether the model knows such images.
  async recognizeImage() {
    this.sayOfImage("");
    if (this.state.image && !this.exampleOf(this.state.image)) this.sayOfImage(await this.questions.recognize());
  }

  // Below the buttons, until another image comes or a run begins, whose own notes say the same.
  sayOfImage(sentence) {
    const line = document.getElementById("unknown-image");
    if (!line) return;
    Object.assign(line, { textContent: sentence, hidden: !sentence });
    this.noted = this.state.image?.path;
  }

  async importMask(file) {
    const { image, mask } = this.state;
    if (!image) return;
    const { mask: packed, error } = await this.loader.send(file, (path) => this.server.open_mask({ path, size: image.mask_size }));
    await this.state.settled();
    if (this.state.image !== image) return;
    if (error) this.say(error);
    else this.changeMask(() => unpack(packed, mask));
  }

  // change: from the mask to another one. movable: whether nobody painted that.
  changeMask(change, movable = false) {
    if (!this.state.mask) return this.say("There is no image yet. Choose an example or upload one.");
    this.state.finishStroke();
    return this.beforePainting() && this.state.paint(change(this.state.mask), movable);
  }

  maskCommand(name) {
    this.state.finishStroke();
    this.changeMask((mask) => {
      const nothing = ["grow", "shrink"].includes(name) && !bounds(mask);
      this.say(nothing ? "Nothing is painted yet." : "");
      return nothing ? mask : MASK_COMMANDS[name](mask);
    }, name === "clear" || this.state.movable);
  }

  choosePreset(name) {
    this.changeMask((mask) => preset(name, mask, this.canvas.paintValue), true);
  }

  useLastMask() {
    const { mask } = this.state;
    const last = this.history?.entries.findLast(({ task, before }) => task === "edit" && before);
    if (!last || !mask) return this.say("There is no last mask yet: it is the one of the last edit.");
    const { width, height } = last.before.mask_size;
    if (mask.width !== width || mask.height !== height) return this.say("The last mask belongs to an image of another size.");
    return this.changeMask(() => unpack(last.mask, mask), last.movable);
  }

  async saveAnimation() {
    const { run, variant } = this.review;
    const shown = this.review.steps().map((step) => step.shown[variant]);
    const { path, error } = await this.server.animate({ shown });
    if (error) this.say(error);
    else Object.assign(document.createElement("a"), { href: fileUrl(path), download: `${run.name}.webp` }).click();
  }

  say(sentence) {
    this.parts.note.textContent = sentence ?? "";
  }

  selectTool(name) {
    this.canvas.tool = name;
    this.element.dataset.tool = name;
    this.canvas.hover(null);
    for (const button of this.element.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
  }

  // By so much of each slider; with the wand, the first is that of its tolerance.
  changeBrush(larger, stronger) {
    const { brushSize, tolerance, strength, strengthShown } = this.parts;
    const first = this.canvas.tool === "wand" ? tolerance : brushSize;
    first.value = String(Number(first.value) + larger);
    strength.value = String(Number(strength.value) + stronger);
    strengthShown.textContent = `${strength.value} %`;
    strength.setAttribute("aria-valuetext", strengthShown.textContent);
    const [size, reach, share] = [brushSize, tolerance, strength].map(({ value }) => Number(value) / 100);
    Object.assign(this.canvas, { brushSize: size, tolerance: reach, strength: share });
  }

  openVariants() {
    const { review, variantGrid } = this;
    if (!review.finished || review.run.results.length < 2) this.say("There is one image only; the settings ask for more.");
    else variantGrid.open(review.run.results, review.variant);
  }
}
