// The edges of the image while Edit expands it: each has a handle, which is dragged outwards or moved by arrows, and the
// image grows by as much when it is let go, or at Enter. Escape takes it back.
const STEP = 1 / 32; // of a side, by an arrow; with Shift a pixel
const MAX_SHARE = 1; // of a side that it grows by at a time
const NONE = { left: 0, top: 0, right: 0, bottom: 0 };
const NAMES = { left: "on the left", top: "above", right: "on the right", bottom: "below" };
const OUTWARDS = { left: "ArrowLeft", top: "ArrowUp", right: "ArrowRight", bottom: "ArrowDown" };
const INWARDS = { left: "ArrowRight", top: "ArrowDown", right: "ArrowLeft", bottom: "ArrowUp" };
const REACH = 22; // screen pixels from a handle's middle to its border

// Where each edge's middle is, in screen pixels, of an image that grows; null where it lies outside of the frame.
export const edgePlaces = (view, size, frame, growth) => {
  const [left, top] = [view.x, view.y];
  const [right, bottom] = [left + size.width * view.scale, top + size.height * view.scale];
  const within = (value, most) => Math.min(Math.max(value, REACH), most - REACH);
  const x = within((Math.max(left, 0) + Math.min(right, frame.width)) / 2, frame.width);
  const y = within((Math.max(top, 0) + Math.min(bottom, frame.height)) / 2, frame.height);
  const place = (edge, most, at) => (edge < 0 || edge > most ? null : at);
  const by = (side) => growth[side] * view.scale;
  return {
    left: place(left, frame.width, { x: within(left - by("left"), frame.width), y }),
    top: place(top, frame.height, { x, y: within(top - by("top"), frame.height) }),
    right: place(right, frame.width, { x: within(right + by("right"), frame.width), y }),
    bottom: place(bottom, frame.height, { x, y: within(bottom + by("bottom"), frame.height) }),
  };
};

export class Edges {
  constructor(pad) {
    Object.assign(this, { pad, growth: NONE, drag: null }); // growth: in pixels of the image
    this.handles = Object.entries(NAMES).map(([side, name]) => this.makeHandle(side, name));
    pad.parts.frame.append(...this.handles);
  }

  makeHandle(side, name) {
    const handle = Object.assign(document.createElement("div"), { className: "sp-edge", tabIndex: 0, hidden: true });
    handle.dataset.side = side;
    handle.title = `Drag to grow the image ${name}, or press ${side === "left" || side === "right" ? "← →" : "↑ ↓"} and Enter`;
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", `Grow the image ${name}`);
    handle.setAttribute("aria-orientation", side === "left" || side === "right" ? "horizontal" : "vertical");
    handle.setAttribute("aria-valuemin", "0");
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus({ preventScroll: true });
      handle.setPointerCapture(event.pointerId);
      this.drag = { side, x: event.clientX, y: event.clientY, before: this.growth[side] };
    });
    handle.addEventListener("pointermove", (event) => this.drag?.side === side && this.follow(event));
    handle.addEventListener("pointerup", () => this.drag && this.apply());
    handle.addEventListener("pointercancel", () => this.reset());
    handle.addEventListener("keydown", (event) => this.moveByKey(side, event));
    handle.addEventListener("focusout", ({ relatedTarget }) => this.handles.includes(relatedTarget) || this.drag || this.reset());
    return handle;
  }

  follow({ clientX, clientY }) {
    const { side, x, y, before } = this.drag;
    const by = { left: x - clientX, right: clientX - x, top: y - clientY, bottom: clientY - y }[side];
    this.set(side, before + by / this.scale());
  }

  // Screen pixels for one of the image's.
  scale() {
    const { canvas, state } = this.pad;
    return (canvas.view.scale * canvas.size.width) / state.image.width;
  }

  length(side) {
    const { width, height } = this.pad.state.image;
    return side === "left" || side === "right" ? width : height;
  }

  set(side, pixels) {
    this.growth = { ...this.growth, [side]: Math.min(Math.max(Math.round(pixels), 0), MAX_SHARE * this.length(side)) };
    this.pad.canvas.requestRender();
  }

  moveByKey(side, event) {
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(this.length(side) * STEP));
    if (event.key === OUTWARDS[side]) this.set(side, this.growth[side] + step);
    else if (event.key === INWARDS[side]) this.set(side, this.growth[side] - step);
    else if (event.key === "Home") this.set(side, 0);
    else if (event.key === "Enter" || event.key === " ") this.apply();
    else if (event.key === "Escape" && Object.values(this.growth).some(Boolean)) this.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  apply() {
    const { growth } = this;
    this.drag = null;
    if (Object.values(growth).some(Boolean)) this.pad.modes.grow(growth).finally(() => this.reset());
  }

  reset() {
    Object.assign(this, { growth: NONE, drag: null });
    this.pad.canvas.requestRender();
  }

  // By how much the image is about to grow, in pixels of the mask; null where it is not.
  preview() {
    const { state, canvas } = this.pad;
    if (!state.image || !Object.values(this.growth).some(Boolean)) return null;
    const share = canvas.size.width / state.image.width;
    return Object.fromEntries(Object.entries(this.growth).map(([side, pixels]) => [side, pixels * share]));
  }

  // Called whenever the canvas was drawn.
  place() {
    const { canvas, state, modes, review } = this.pad;
    const shown = modes.chosen === "expand" && state.image && canvas.view && !review.active;
    const places = shown ? edgePlaces(canvas.view, canvas.size, canvas.frameSize(), this.preview() ?? NONE) : {};
    for (const handle of this.handles) {
      const { side } = handle.dataset;
      const place = places[side];
      handle.hidden = !place;
      if (!place) continue;
      Object.assign(handle.style, { left: `${place.x}px`, top: `${place.y}px` });
      handle.dataset.shown = this.growth[side] ? `+${this.growth[side]}` : "";
      handle.setAttribute("aria-valuemax", String(MAX_SHARE * this.length(side)));
      handle.setAttribute("aria-valuenow", String(this.growth[side]));
      handle.setAttribute("aria-valuetext", `${this.growth[side]} pixels`);
    }
  }
}
