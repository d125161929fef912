// The canvas: what is painted on it with a pointer, and what it shows.
import { capsule, copyOf, fillPolygon, fillRect } from "./bitmap.js";
import { draw, tintOf } from "./drawing.js";
import { Gestures } from "./gestures.js";
import { fit, moved, toPicture, zoomed } from "./view.js";

const FINEST = 0.5; // radius of the smallest brush, in pixels of the mask
const COARSEST = 1 / 4; // radius of the largest, over the picture's longer side
const WHEEL = 0.002; // how much closer for a pixel of the wheel

export class Canvas {
  // state: what is painted; review: what is shown over it; before: called before anything is painted, false forbids it.
  constructor(canvas, frame, state, review, before) {
    Object.assign(this, { canvas, frame, state, review, before, tool: "brush", share: 0.4, view: null, size: null });
    Object.assign(this, { picture: null, grid: null, cursor: null, outline: null, stroke: null, waiting: false });
    this.gestures = new Gestures(this);
    this.listen();
    new ResizeObserver(() => this.whole()).observe(frame);
  }

  // Another picture, whose image may still be on its way.
  place(size) {
    const other = !this.size || size.width !== this.size.width || size.height !== this.size.height;
    this.size = size;
    if (other) this.whole();
  }

  show() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const ratio = window.devicePixelRatio || 1;
    const frame = this.room();
    const [width, height] = [Math.round(frame.width * ratio), Math.round(frame.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const mask = this.stroke ?? this.state.mask;
    if (mask && this.tinted !== mask) {
      const fits = this.tint?.width === mask.width && this.tint?.height === mask.height;
      this.tint = tintOf(mask, fits ? this.tint : undefined);
      this.tinted = this.stroke ? null : mask; // a stroke goes on in the same mask
    }
    const shown = { view: this.view, size: this.size, picture: this.picture, tint: this.tint, cursor: this.cursor };
    const over = { grid: this.stroke ? null : this.grid, outline: this.outline, review: this.review.scene() };
    draw(this.canvas.getContext("2d"), { frame, ratio, ...shown, ...over });
    this.drawn?.();
  }

  room() {
    return { width: this.frame.clientWidth, height: this.frame.clientHeight };
  }

  whole() {
    if (this.size) this.view = fit(this.size, this.room());
    this.show();
  }

  zoom(factor, at = { x: this.frame.clientWidth / 2, y: this.frame.clientHeight / 2 }) {
    if (this.view) this.view = zoomed(this.view, at, factor, this.size, this.room());
    this.show();
  }

  move(dx, dy) {
    if (this.view) this.view = moved(this.view, dx, dy, this.size, this.room());
    this.show();
  }

  // The brush's radius in pixels of the mask; the slider's steps are finer for small ones.
  get radius() {
    if (!this.size) return 1;
    const most = Math.max(this.size.width, this.size.height) * COARSEST;
    return FINEST + (most - FINEST) * this.share ** 2;
  }

  // What `Gestures` asks for.

  begin(point, how) {
    if (!this.size || !this.before()) return;
    this.value = this.tool === "eraser" || how === "erase" ? 0 : 255;
    this.stroke = copyOf(this.state.mask);
    this.points = [toPicture(this.view, point)];
    if (this.isBrush()) capsule(this.stroke, this.points[0], this.points[0], this.radius, this.value);
    this.hover(point);
  }

  go(point) {
    if (!this.stroke) return;
    const [last, now] = [this.points[this.points.length - 1], toPicture(this.view, point)];
    this.points.push(now);
    if (this.isBrush()) capsule(this.stroke, last, now, this.radius, this.value);
    else this.outline = this.tool === "lasso" ? this.points : corners(this.points[0], now);
    this.hover(point);
  }

  end() {
    if (!this.stroke) return;
    const mask = this.stroke;
    const [first, last] = [this.points[0], this.points[this.points.length - 1]];
    if (this.tool === "lasso" && this.points.length > 1) fillPolygon(mask, this.points, this.value);
    if (this.tool === "rectangle") {
      const [{ x: left, y: top }, , { x: right, y: bottom }] = corners(first, last);
      fillRect(mask, Math.floor(left), Math.floor(top), Math.ceil(right), Math.ceil(bottom), this.value);
    }
    this.abandon();
    this.state.paint(mask);
  }

  abandon() {
    Object.assign(this, { stroke: null, outline: null, tinted: null });
    this.show();
  }

  hover(point) {
    this.cursor = this.isBrush() ? { x: point.x, y: point.y, radius: this.radius } : null;
    this.show();
  }

  pinch({ dx, dy, factor, at }) {
    // Closer first: a picture that fills its frame can be moved only then.
    if (factor !== 1) this.zoom(factor, at);
    this.move(dx, dy);
  }

  isBrush() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  listen() {
    const place = ({ clientX, clientY }) => {
      const box = this.canvas.getBoundingClientRect();
      return { x: clientX - box.left, y: clientY - box.top };
    };
    const on = (name, act) => this.canvas.addEventListener(name, act, { passive: false });
    on("pointerdown", (event) => {
      if (event.button > 2) return;
      event.preventDefault();
      this.canvas.focus({ preventScroll: true });
      this.canvas.setPointerCapture(event.pointerId);
      const how = event.button === 1 || event.altKey ? "pan" : event.button === 2 || event.buttons & 32 ? "erase" : "paint";
      this.gestures.press({ id: event.pointerId, ...place(event) }, how);
    });
    on("pointermove", (event) => {
      const all = event.getCoalescedEvents?.() ?? [];
      this.gestures.move(event.pointerId, [...all.map(place), place(event)]);
    });
    on("pointerup", (event) => this.gestures.lift(event.pointerId));
    on("pointercancel", (event) => this.gestures.lift(event.pointerId, true));
    on("pointerleave", () => {
      this.cursor = null;
      this.show();
    });
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => {
      const factor = Math.exp(-event.deltaY * WHEEL * (event.deltaMode ? 16 : 1));
      const before = this.view?.scale;
      this.zoom(factor, place(event));
      // At its smallest it lets the page scroll.
      if (event.ctrlKey || this.view?.scale !== before) event.preventDefault();
    });
  }
}

const corners = (a, b) => {
  const [left, right] = [Math.min(a.x, b.x), Math.max(a.x, b.x)];
  const [top, bottom] = [Math.min(a.y, b.y), Math.max(a.y, b.y)];
  return [{ x: left, y: top }, { x: right, y: top }, { x: right, y: bottom }, { x: left, y: bottom }];
};
