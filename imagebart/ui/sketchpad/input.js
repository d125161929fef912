// What a person does with pointers, keys and files, and the commands that come of it.
import { click, hideMessages, whenPresent } from "./gradio.js";
import { saveInTab } from "./images.js";
import { GROWTH } from "./modes.js";
import { promptBox } from "./prompt.js";

const WHEEL = 0.002; // zoom for each pixel of the wheel: its logarithm
const ZOOM = 1.25;
const PAN = 60; // screen pixels for an arrow key
const [SIZE_STEP, STRENGTH_STEP] = [5, 10]; // of the brush's sliders

// What buttons (data-command, data-tool) and keys do, by name.
const COMMANDS = {
  ...Object.fromEntries(["brush", "eraser", "rectangle", "lasso", "wand"].map((name) => [name, (pad) => pad.selectTool(name)])),
  ...Object.fromEntries(["invert", "grow", "shrink", "clear"].map((name) => [name, (pad) => pad.maskCommand(name)])),
  smallerBrush: (pad) => pad.changeBrush(-SIZE_STEP, 0),
  largerBrush: (pad) => pad.changeBrush(SIZE_STEP, 0),
  weakerBrush: (pad) => pad.changeBrush(0, -STRENGTH_STEP),
  strongerBrush: (pad) => pad.changeBrush(0, STRENGTH_STEP),
  zoomIn: ({ canvas }) => canvas.zoom(ZOOM),
  zoomOut: ({ canvas }) => canvas.zoom(1 / ZOOM),
  fitView: ({ canvas }) => canvas.fitView(),
  left: ({ canvas }) => canvas.pan(PAN, 0),
  right: ({ canvas }) => canvas.pan(-PAN, 0),
  up: ({ canvas }) => canvas.pan(0, PAN),
  down: ({ canvas }) => canvas.pan(0, -PAN),
  undo: (pad) => pad.undo(),
  redo: (pad) => pad.redo(),
  select: (pad) => pad.keepAtOnce() && pad.questions.select(),
  describe: (pad) => pad.keepAtOnce() && pad.questions.describe(),
  keep: (pad) => pad.keep(),
  discard: (pad) => pad.discard(),
  openVariants: (pad) => pad.openVariants(),
  closeVariants: ({ parts }) => parts.compare.close(),
  replay: ({ review }) => review.replay(),
  saveAnimation: (pad) => pad.saveAnimation(),
  saveStrip: (pad) => pad.review.saveStrip(),
  copyLink: (pad) => pad.sharing.copyLink(pad.controls),
  ...Object.fromEntries(Object.keys(GROWTH).map((name) => [name, (pad) => pad.keepAtOnce() && pad.modes.expand(name)])),
  lastMask: (pad) => pad.useLastMask(),
  upload: ({ parts }) => parts.file.click(),
  importMask: ({ parts }) => parts.maskFile.click(),
  help: ({ parts }) => parts.help.togglePopover(),
  cancel: (pad) => {
    const menu = document.querySelector(":popover-open");
    if (menu) menu.hidePopover();
    else if (pad.parts.compare.open) pad.parts.compare.close();
    else pad.runState.cancel();
  },
};

export const execute = (pad, command) => COMMANDS[command](pad);

const KEYS = new Map(Object.entries({
  b: "brush", e: "eraser", r: "rectangle", l: "lasso", w: "wand", m: "lastMask", g: "openVariants",
  i: "invert",
  "[": "smallerBrush", "]": "largerBrush", "{": "weakerBrush", "}": "strongerBrush",
  "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", 0: "fitView", "?": "help", Escape: "cancel",
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
}));

// The command of a KeyboardEvent, or null; `typing`: whether it goes to a text field.
export const commandOf = ({ key, ctrlKey, metaKey, altKey, shiftKey }, typing) => {
  if (ctrlKey || metaKey) {
    if (typing || altKey) return null;
    if (key.toLowerCase() === "z") return shiftKey ? "redo" : "undo";
    return key.toLowerCase() === "y" ? "redo" : null;
  }
  if (altKey) return null;
  if (typing) return key === "Escape" ? "cancel" : null;
  return KEYS.get(key) ?? KEYS.get(key.toLowerCase()) ?? null;
};

// Pointers: one paints, two pan and zoom. A pointer is { id, x, y } in screen pixels; `target` has begin, extend, end and
// abort (of a stroke), hover and pinch.
export class Gestures {
  constructor(target) {
    this.target = target;
    this.down = new Map();
    this.painting = null; // the pointer that paints
    this.pans = false; // two pointers were down; nothing paints until all are up
  }

  press(pointer, how) {
    this.down.set(pointer.id, pointer);
    if (this.down.size > 1) {
      this.finish("abort");
      this.pans = true;
    } else if (how === "pan") this.pans = true;
    else {
      this.target.begin(pointer, how); // which may first change the image, and so end a stroke
      this.painting = pointer.id;
    }
  }

  // points: all positions since the last call, the current one last.
  move(id, points) {
    const now = { id, ...points[points.length - 1] };
    if (!this.down.has(id)) return void this.target.hover(now);
    const before = [...this.down.values()];
    this.down.set(id, now);
    if (id === this.painting) points.forEach((point) => this.target.extend(point));
    else if (this.pans) this.target.pinch(pinchOf(before, [...this.down.values()]));
  }

  // The stroke ends here, though its pointer may still be down; or is aborted.
  finish(how = "end") {
    if (this.painting === null) return;
    this.painting = null;
    this.target[how]();
  }

  lift(id, cancelled = false) {
    if (!this.down.delete(id)) return;
    if (id === this.painting) this.finish(cancelled ? "abort" : "end");
    if (!this.down.size) this.pans = false;
  }
}

// How the middle of the pointers and their distance changed: { dx, dy, factor, at (where their middle was) }.
const pinchOf = (before, after) => {
  const middle = (points) => ({
    x: points.reduce((sum, point) => sum + point.x, 0) / points.length,
    y: points.reduce((sum, point) => sum + point.y, 0) / points.length,
  });
  const spread = (points) => (points.length < 2 ? 1 : Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) || 1);
  const [from, to] = [middle(before), middle(after)];
  return { dx: to.x - from.x, dy: to.y - from.y, factor: spread(after) / spread(before), at: from };
};

// A toolbar with a roving tabindex, one stop for the Tab key, as in the ARIA Authoring Practices: left and right arrows,
// Home and End move the focus along it; up and down arrows, too, where it has columns, else they change a slider's value.
const ITEMS = "button, a[href], input:not([type=file])";

const addRoving = (bar) => {
  const items = () => [...bar.querySelectorAll(ITEMS)];
  const setStop = (chosen) => items().forEach((item) => (item.tabIndex = item === chosen ? 0 : -1));
  // Outside, the stop is the first item: the one that was left may be disabled by then.
  const reset = () => setStop(items().find((item) => !item.disabled));

  bar.addEventListener("keydown", (event) => {
    const all = items().filter((item) => !item.disabled && item.offsetParent);
    const at = all.indexOf(event.target);
    const columns = Number(bar.dataset.columns); // NaN where there are none
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: -at - 1 }[event.key];
    const ofSlider = event.target.type === "range" && ["Home", "End"].includes(event.key);
    if (at < 0 || !Number.isInteger(step) || ofSlider) return;
    event.preventDefault();
    all[(at + step + all.length) % all.length].focus();
  });
  bar.addEventListener("focusin", ({ target }) => target.matches(ITEMS) && setStop(target));
  bar.addEventListener("focusout", ({ relatedTarget }) => bar.contains(relatedTarget) || reset());
  // Examples and variants come and go.
  new MutationObserver(() => bar.contains(document.activeElement) || reset()).observe(bar, { childList: true, subtree: true });
  reset();
};

// Everything that the sketchpad listens to, but for the page's buttons that start and cancel a run.
export const listen = (pad) => {
  for (const bar of pad.element.querySelectorAll("[data-roving]")) addRoving(bar);
  whenPresent("history", (element) => addRoving(element.querySelector("[data-roving]")));
  listenToPointers(pad);
  listenToKeys(pad);
  listenToButtons(pad);
  listenToMenus(pad);
  listenToFiles(pad);
  listenToSlider(pad);
  document.addEventListener("input", ({ target }) => target === promptBox() && hideMessages());
  // Gradio does not tell when the prompt changes.
  addEventListener("pagehide", () => saveInTab("words", promptBox()?.value ?? null));
};

// "pan", "erase" or "paint"; with the wand also "add" to the mask, or "tap" it with a finger.
const pressKind = ({ button, buttons, altKey, shiftKey, pointerType }, wand) => {
  if (button === 1 || (altKey && !wand)) return "pan";
  if (button === 2 || buttons & 32 || altKey) return "erase";
  if (wand && shiftKey) return "add";
  return wand && pointerType === "touch" ? "tap" : "paint";
};

const listenToPointers = ({ canvas, gestures }) => {
  const { element } = canvas;
  const place = ({ clientX, clientY }) => {
    const box = element.getBoundingClientRect();
    return { x: clientX - box.left, y: clientY - box.top };
  };
  const on = (name, act) => element.addEventListener(name, act, { passive: false });
  on("pointerdown", (event) => {
    if (event.button > 2) return;
    event.preventDefault();
    element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    const how = pressKind(event, canvas.tool === "wand");
    gestures.press({ id: event.pointerId, ...place(event) }, how);
  });
  on("pointermove", (event) => {
    const all = event.getCoalescedEvents?.() ?? [];
    gestures.move(event.pointerId, [...all.map(place), place(event)]);
  });
  on("pointerup", (event) => gestures.lift(event.pointerId));
  on("pointercancel", (event) => gestures.lift(event.pointerId, true));
  on("pointerleave", () => canvas.hover(null));
  on("contextmenu", (event) => event.preventDefault());
  on("wheel", (event) => {
    const factor = Math.exp(-event.deltaY * WHEEL * (event.deltaMode ? 16 : 1));
    const before = canvas.view?.scale;
    canvas.zoom(factor, place(event));
    // At its smallest it lets the page scroll.
    if (event.ctrlKey || canvas.view?.scale !== before) event.preventDefault();
  });
};

const TEXT_FIELDS = "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio])";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Keys of the wand on the image; whether this is one.
const wandKey = (canvas, { key, shiftKey, altKey }) => {
  if (ARROWS[key]) canvas.moveWand(...ARROWS[key], shiftKey);
  else if (["Enter", " "].includes(key)) canvas.useWand(altKey ? "erase" : shiftKey ? "add" : "paint");
  else return false;
  return true;
};

const listenToKeys = (pad) => {
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    // A key that is held presses no second button: others take the place of Edit.
    if (event.repeat && event.key === "Enter" && target.closest?.("#actions")) return void event.preventDefault();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && target === promptBox()) {
      event.preventDefault();
      return void click("edit");
    }
    if (target === pad.parts.canvas && pad.canvas.tool === "wand" && pad.canvas.size && wandKey(pad.canvas, event)) {
      return void event.preventDefault();
    }
    // The prompt has the page's undo: its own would know nothing of what was written there by a click.
    const typing = target.matches?.(TEXT_FIELDS) && !(target === promptBox() && (event.ctrlKey || event.metaKey));
    const command = event.isComposing ? null : commandOf(event, typing);
    // Arrows belong to the control that has the focus.
    if (!command || (event.key.startsWith("Arrow") && target !== pad.parts.canvas)) return;
    if (event.key === "Escape" && target.closest?.("[role=listbox], [role=combobox]")) return;
    event.preventDefault();
    execute(pad, command);
  });
};

const listenToButtons = (pad) => {
  const { parts, element } = pad;
  element.addEventListener("click", ({ target }) => {
    const { command, tool, preset } = target.closest("[data-command], [data-tool], [data-preset]")?.dataset ?? {};
    if (preset) pad.choosePreset(preset);
    else if (command ?? tool) execute(pad, command ?? tool);
  });
  for (const slider of [parts.brushSize, parts.tolerance, parts.strength]) {
    slider.addEventListener("input", () => pad.changeBrush(0, 0));
  }
  // Gradio's list of classes stays open over the buttons.
  document.addEventListener("click", ({ target }) => target.closest?.("#choice li") && document.activeElement.blur());
};

// A menu opens at its button, and closes when something in it is chosen, but for what is pressed several times.
const listenToMenus = ({ element }) => {
  for (const menu of element.querySelectorAll(".sp-menu")) {
    menu.addEventListener("click", ({ target }) => {
      const chosen = target.closest("button, a");
      if (chosen && !["grow", "shrink", "zoomIn", "zoomOut"].includes(chosen.dataset.command)) menu.hidePopover();
    });
    menu.addEventListener("toggle", ({ newState }) => {
      const button = [...document.querySelectorAll(`[popovertarget="${menu.id}"]`)].find(({ offsetParent }) => offsetParent);
      if (newState !== "open" || !button) return;
      const { left, top, bottom } = button.getBoundingClientRect();
      const [width, height] = [menu.offsetWidth, menu.offsetHeight];
      const below = bottom + height + 8 < innerHeight ? bottom + 4 : Math.max(8, top - height - 4);
      Object.assign(menu.style, { left: `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`, top: `${below}px` });
    });
  }
};

const listenToFiles = (pad) => {
  const { parts } = pad;
  for (const [input, open] of [[parts.file, (file) => pad.openFile(file)], [parts.maskFile, (file) => pad.importMask(file)]]) {
    input.addEventListener("change", () => {
      if (input.files[0]) open(input.files[0]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    pad.openFile(file);
  }, true);
  for (const kind of ["dragover", "drop"]) {
    pad.element.addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (kind === "drop" && event.dataTransfer.files[0]) pad.openFile(event.dataTransfer.files[0]);
    });
  }
};

const listenToSlider = (pad) => {
  const { slider, frame } = pad.parts;
  slider.addEventListener("pointerdown", ({ pointerId }) => slider.setPointerCapture(pointerId));
  slider.addEventListener("pointermove", ({ pointerId, clientX }) => {
    if (!slider.hasPointerCapture(pointerId)) return;
    const { view, size } = pad.canvas;
    pad.review.moveSlider((clientX - frame.getBoundingClientRect().left - view.x) / (size.width * view.scale));
  });
};
