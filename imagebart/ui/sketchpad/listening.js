// What the sketchpad listens to: its buttons, keys, files, and what the server says.
import { press, promptBox, whenThere } from "./around.js";
import { actionOf } from "./keys.js";
import { rove } from "./roving.js";
import { remember } from "./store.js";

export const listen = (pad) => {
  for (const group of pad.element.querySelectorAll("[data-rove]")) rove(group);
  whenThere("history", (place) => rove(place.querySelector("[data-rove]")));
  listenToButtons(pad);
  listenToFiles(pad);
  listenToWipe(pad);
  listenToPage(pad);
  listenToKeys(pad);
};

const listenToButtons = (pad) => {
  const { parts, element } = pad;
  element.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-do], [data-tool], [data-film]");
    if (!button) return;
    if (button.dataset.film) pad.film(button.dataset.film);
    else pad.act(button.dataset.do ?? button.dataset.tool);
  });
  parts.size.addEventListener("input", () => pad.size(0));
  parts.showGrid.addEventListener("change", () => {
    if (pad.answered?.version === pad.state.version) pad.grid(pad.answered);
  });
};

const listenToFiles = (pad) => {
  const { parts } = pad;
  for (const [input, take] of [[parts.file, (file) => pad.open(file)], [parts.maskFile, (file) => pad.loadMask(file)]]) {
    input.addEventListener("change", () => {
      if (input.files[0]) take(input.files[0]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    pad.open(file);
  }, true);
  for (const kind of ["dragover", "drop"]) {
    pad.element.addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (kind === "drop" && event.dataTransfer.files[0]) pad.open(event.dataTransfer.files[0]);
    });
  }
};

const listenToWipe = (pad) => {
  const { wipe, frame } = pad.parts;
  const move = (event) => {
    const { view, size } = pad.canvas;
    pad.review.move((event.clientX - frame.getBoundingClientRect().left - view.x) / (size.width * view.scale));
  };
  wipe.addEventListener("pointerdown", (event) => {
    wipe.setPointerCapture(event.pointerId);
    wipe.addEventListener("pointermove", move);
  });
  wipe.addEventListener("lostpointercapture", () => wipe.removeEventListener("pointermove", move));
};

const listenToPage = (pad) => {
  addEventListener("imagebart-run", ({ detail }) => pad.run(detail));
  addEventListener("imagebart-grid", ({ detail }) => pad.grid(detail));
  addEventListener("imagebart-examples", ({ detail }) => pad.switched(detail));
  addEventListener("imagebart-looked", ({ detail }) => pad.looking.answer(detail));
  // Before Gradio hears of it. What is asked for while another run goes on is asked for twice by one hand.
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("#edit, #vary, #generate, #cancel")?.id;
    if (pressed === "cancel") pad.asked.cancel();
    else if (pressed && (pad.asked.state || !begins(pad, pressed))) event.stopPropagation();
    else if (pressed) pad.asked.begin();
  }, true);
  // The prompt, of which Gradio tells nobody.
  addEventListener("pagehide", () => remember("words", promptBox()?.value ?? null));
};

// Whether a run begins now. What is shown is what is edited; the same again begins from the same.
const begins = (pad, task) => {
  pad.say("");
  if (task === "generate") return true;
  pad.canvas.gestures.finish();
  if (pad.review.finished && pad.review.run.task !== task) {
    const kept = pad.keep();
    if (pad.review.finished) {
      kept.then(() => pad.review.finished || press(task));
      return false;
    }
  }
  return task !== "edit" || !pad.looking.edit();
};

const listenToKeys = (pad) => {
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && target === promptBox()) {
      event.preventDefault();
      press("edit");
      return;
    }
    const writing = target.matches?.("textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio])");
    const action = actionOf(event, writing);
    // Arrows belong to whatever is chosen by them.
    if (!action || (event.key.startsWith("Arrow") && target !== pad.parts.canvas)) return;
    if (event.key === "Escape" && target.closest?.("[role=listbox], [role=combobox]")) return;
    event.preventDefault();
    pad.act(action);
  });
  document.addEventListener("keyup", ({ key }) => key.toLowerCase() === "c" && pad.review.peeking && pad.peek(false));
};
