// The canvas: where the image is on the screen, what is drawn there, and the strokes that paint its mask.
//
// One plain 2D canvas: a mask of up to a megapixel is composited in a few milliseconds, without a library, and looks the
// same with and without a graphics card. A view is { scale, x, y }: screen pixels for one of the mask's, and the screen
// position of its upper left corner.
import { createCanvas } from "./images.js";
import { addedApart, blank, contour, fillCapsule, fillPolygon, fillSelection, floodFill, grow } from "./mask.js";

const MAX_SCALE = 40; // screen pixels for one of the mask's
const MARGIN = 8; // screen pixels around the image
const KNOB_RADIUS = 20; // of the before/after slider, in screen pixels
const PIXELATED = 6; // the scale from which pixels are shown as squares
const OVERLAY = [255, 61, 113]; // RGB, as MASK_COLOR in models.py
const OPACITY = 0.6; // of the mask at strength 1; as MASK_OPACITY in models.py
const OUTLINE_SIDE = 112; // pixels of the longer side of a mask's outline on a thumbnail
const MIN_RADIUS = 0.5; // of the brush, in pixels of the mask
const MAX_RADIUS = 1 / 4; // of the brush, over the mask's longer side
const WAND_MARGIN = 1 / 512; // around a selected color, over the longer side, at least a pixel: edges mix two colors
const WAND_STEP = 1 / 32; // by an arrow key, over the longer side
const WAND_RADIUS = 7; // of its mark, in screen pixels
const LINE_WIDTH = 2; // of the lines around what will change, in screen pixels
const CHECK = 8; // of the squares behind a transparent image, in screen pixels

// The whole image in the middle of its frame. Sizes are { width, height }; the size of the image is its mask's.
export const fit = (size, frame) => {
  const room = (side) => Math.max(1, side - 2 * MARGIN);
  const scale = Math.min(room(frame.width) / size.width, room(frame.height) / size.height);
  return { scale, x: (frame.width - size.width * scale) / 2, y: (frame.height - size.height * scale) / 2 };
};

export const toImage = (view, point) => ({ x: (point.x - view.x) / view.scale, y: (point.y - view.y) / view.scale });

export const toScreen = (view, point) => ({ x: point.x * view.scale + view.x, y: point.y * view.scale + view.y });

// Zoom by `factor` around the screen point `at`; never smaller than the whole image in its frame.
export const zoom = (view, at, factor, size, frame) => {
  const smallest = fit(size, frame).scale;
  const scale = Math.min(Math.max(view.scale * factor, smallest), Math.max(MAX_SCALE, smallest));
  const ratio = scale / view.scale;
  return keepInFrame({ scale, x: at.x - (at.x - view.x) * ratio, y: at.y - (at.y - view.y) * ratio }, size, frame);
};

export const pan = (view, dx, dy, size, frame) => keepInFrame({ ...view, x: view.x + dx, y: view.y + dy }, size, frame);

// Centered where the image is smaller than the frame, else without a gap at the edges.
const keepInFrame = (view, size, frame) => {
  const place = (start, length, room) => {
    if (length <= room) return (room - length) / 2;
    return Math.min(MARGIN, Math.max(room - length - MARGIN, start));
  };
  return {
    scale: view.scale,
    x: place(view.x, size.width * view.scale, frame.width),
    y: place(view.y, size.height * view.scale, frame.height),
  };
};

// The before/after slider at a share of the image's width: a line over the visible part of the image, and how far the
// knob is from it, so that the whole knob is in the frame.
export const sliderPosition = (view, size, frame, share) => {
  const left = view.x + size.width * view.scale * share;
  const top = Math.max(0, view.y);
  const bottom = Math.min(frame.height, view.y + size.height * view.scale);
  return { left, top, height: bottom - top, knob: Math.min(Math.max(left, KNOB_RADIUS), frame.width - KNOB_RADIUS) - left };
};

// The mask as a canvas in the color of the brush, so opaque where its strength is 1.
const maskOverlay = (mask, canvas = createCanvas(mask.width, mask.height)) => {
  const pixels = new Uint32Array(mask.data.length);
  const color = (OVERLAY[2] << 16) | (OVERLAY[1] << 8) | OVERLAY[0];
  for (let i = 0; i < pixels.length; i++) {
    if (mask.data[i]) pixels[i] = ((Math.ceil(mask.data[i] * OPACITY) << 24) | color) >>> 0;
  }
  const image = new ImageData(new Uint8ClampedArray(pixels.buffer), mask.width, mask.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
};

// The outline of a mask on a small canvas.
export const maskOutline = (mask) => {
  const scale = OUTLINE_SIDE / Math.max(mask.width, mask.height);
  const canvas = createCanvas(Math.ceil(mask.width * scale), Math.ceil(mask.height * scale));
  drawLines(canvas.getContext("2d"), contour(mask), { scale, x: 0, y: 0 });
  return canvas;
};

// canvas: a Canvas; result: what a run shows, see `scene` in review.js; frame: { width, height } of what is seen.
const drawScene = (context, canvas, result, frame) => {
  const { view, size, state, review, outline } = canvas;
  context.clearRect(0, 0, frame.width, frame.height);
  if (!size) return drawResult(context, result, frame);
  const box = [view.x, view.y, size.width * view.scale, size.height * view.scale];
  context.imageSmoothingEnabled = view.scale < PIXELATED;
  context.imageSmoothingQuality = "high";
  drawCheckerboard(context, canvas.tile ??= checkerboardTile(), box);
  if (canvas.bitmap) context.drawImage(canvas.bitmap, ...box);
  drawResult(context, result, frame, box, canvas.tile);
  context.imageSmoothingEnabled = false;
  if (!result && canvas.showsMask) context.drawImage(canvas.overlay, ...box);
  const changes = canvas.running ?? canvas.fitted;
  if (changes && !state.stroke && !review.finished && !result?.alone) drawLines(context, changes, view);
  if (!result && outline) {
    strokeOutlined(context, () => {
      for (const { x, y } of outline.map((point) => toScreen(view, point))) context.lineTo(x, y);
      context.closePath();
    });
  }
  if (!result && canvas.cursor) drawCursor(context, canvas.cursor, view);
};

// The bitmap of a run, and what it dissolves out of: over the image that it changes, right of the slider; or alone in
// the middle.
const drawResult = (context, result, frame, box, tile) => {
  if (!result?.bitmap) return;
  const { bitmap, previous, mix, alone, split } = result;
  context.save();
  if (alone || !box) context.clearRect(0, 0, frame.width, frame.height);
  else {
    const [x, y, width, height] = box;
    context.beginPath();
    context.rect(x + width * split, y, width * (1 - split), height);
    context.clip();
    if (previous || mix === 1) drawCheckerboard(context, tile, box); // in place of what it changes, where that is transparent
  }
  const dissolving = mix < 1 ? [[previous, 1], [bitmap, mix]] : [[bitmap, 1]];
  for (const [shown, alpha] of dissolving.filter(([one]) => one)) {
    const size = { width: shown.naturalWidth, height: shown.naturalHeight };
    const view = fit(size, frame);
    context.globalAlpha = alpha;
    context.drawImage(shown, ...(alone || !box ? [view.x, view.y, size.width * view.scale, size.height * view.scale] : box));
  }
  context.restore();
};

// What is seen through a transparent image. tile: repeated, two squares along its sides; made once for each canvas.
const drawCheckerboard = (context, tile, box) => {
  context.fillStyle = context.createPattern(tile, "repeat");
  context.fillRect(...box);
};

const checkerboardTile = () => {
  const tile = createCanvas(2 * CHECK, 2 * CHECK);
  const context = tile.getContext("2d");
  for (const [x, y] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
    context.fillStyle = x === y ? "#d8dce3" : "#fff";
    context.fillRect(x * CHECK, y * CHECK, CHECK, CHECK);
  }
  return tile;
};

// A path in white on black, to be seen on any image. draw: adds to the path.
const strokeOutlined = (context, draw, width = 1) => {
  context.beginPath();
  draw();
  for (const [color, thickness] of [["rgba(15, 23, 42, 0.75)", width + 1.5], ["#fff", width]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.stroke();
  }
};

// Lines from `contour`: what an edit will change, or does.
const drawLines = (context, lines, view) => {
  context.lineCap = "square";
  strokeOutlined(context, () => {
    for (const [x1, y1, x2, y2] of lines) {
      const [from, to] = [toScreen(view, { x: x1, y: y1 }), toScreen(view, { x: x2, y: y2 })];
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
    }
  }, LINE_WIDTH);
  context.lineCap = "butt";
};

const drawCursor = (context, cursor, view) => {
  strokeOutlined(context, () => {
    context.arc(cursor.x, cursor.y, Math.max(2, cursor.radius * view.scale), 0, 2 * Math.PI);
    context.fillStyle = `rgb(${OVERLAY.join(" ")} / ${cursor.strength ?? 0})`;
    context.fill();
  });
};

export class Canvas {
  // state: the mask that is painted; review: the result shown over it; beforeStroke: called before anything is
  // painted, false forbids it; showsExample: whether the mask is an example's; afterRender: called after each drawing.
  constructor({ element, frame, state, review, beforeStroke, showsExample, afterRender }) {
    Object.assign(this, { element, frame, state, review, beforeStroke, showsExample, afterRender });
    Object.assign(this, { tool: "brush", brushSize: 0.4, strength: 1, tolerance: 0.1, showsMask: true });
    Object.assign(this, { view: null, size: null, bitmap: null, cursor: null, outline: null });
    // What Edit will change, and what the run that goes on changes: lines, or null.
    Object.assign(this, { fitted: null, running: null });
    this.requested = false; // whether it is drawn in the next frame
    new ResizeObserver(() => this.fitView()).observe(frame);
  }

  // Another image, whose bitmap may still be loading.
  setSize(size) {
    const other = !this.size || size.width !== this.size.width || size.height !== this.size.height;
    this.size = size;
    if (other) this.fitView();
  }

  // The image, as it is shown; null while it loads.
  setBitmap(bitmap) {
    const { onceShown } = this;
    Object.assign(this, { bitmap, onceShown: null });
    if (bitmap) onceShown?.();
    this.requestRender();
  }

  requestRender() {
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => {
      this.requested = false;
      this.render();
    });
  }

  render() {
    const ratio = window.devicePixelRatio || 1;
    const frame = this.frameSize();
    const [width, height] = [Math.round(frame.width * ratio), Math.round(frame.height * ratio)];
    if (this.element.width !== width || this.element.height !== height) Object.assign(this.element, { width, height });
    const { stroke } = this.state;
    const mask = stroke ?? this.state.mask;
    if (mask && this.overlayMask !== mask) {
      const fits = this.overlay?.width === mask.width && this.overlay?.height === mask.height;
      this.overlay = maskOverlay(mask, fits ? this.overlay : undefined);
      this.overlayMask = stroke ? null : mask; // a stroke goes on in the same mask
    }
    const [context, result] = [this.element.getContext("2d"), this.review.scene()];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawScene(context, this, result, frame);
    if (result?.mix < 1) this.requestRender(); // one state dissolves into another
    this.afterRender();
  }

  frameSize() {
    return { width: this.frame.clientWidth, height: this.frame.clientHeight };
  }

  fitView() {
    if (this.size) this.view = fit(this.size, this.frameSize());
    this.requestRender();
  }

  zoom(factor, at = { x: this.frame.clientWidth / 2, y: this.frame.clientHeight / 2 }) {
    if (this.view) this.view = zoom(this.view, at, factor, this.size, this.frameSize());
    this.requestRender();
  }

  pan(dx, dy) {
    if (this.view) this.view = pan(this.view, dx, dy, this.size, this.frameSize());
    this.requestRender();
  }

  pinch({ dx, dy, factor, at }) {
    // Zoom first: an image that is fitted to its frame cannot be moved.
    if (factor !== 1) this.zoom(factor, at);
    this.pan(dx, dy);
  }

  // In pixels of the mask; the slider's steps are finer for small brushes.
  get brushRadius() {
    if (!this.size) return 1;
    const largest = Math.max(this.size.width, this.size.height) * MAX_RADIUS;
    return MIN_RADIUS + (largest - MIN_RADIUS) * this.brushSize ** 2;
  }

  // Of what is painted, in the mask.
  get paintValue() {
    return Math.round(255 * this.strength);
  }

  isBrush() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  // A stroke with the tool; points are in screen pixels.
  begin(point, how) {
    if (!this.size || !this.beforeStroke()) return;
    this.value = this.tool === "eraser" || how === "erase" ? 0 : this.paintValue;
    this.how = how;
    const stroke = this.state.beginStroke();
    this.points = [toImage(this.view, point)];
    if (this.isBrush()) fillCapsule(stroke, this.points[0], this.points[0], this.brushRadius, this.value);
    this.hover(point);
  }

  extend(point) {
    const { stroke } = this.state;
    if (!stroke) return;
    const [first, last, now] = [this.points[0], this.points.at(-1), toImage(this.view, point)];
    this.points.push(now);
    if (this.tool === "wand") return;
    if (this.isBrush()) fillCapsule(stroke, last, now, this.brushRadius, this.value);
    else this.outline = this.tool === "lasso" ? this.points : [first, { x: now.x, y: first.y }, now, { x: first.x, y: now.y }];
    this.hover(point);
  }

  end() {
    const mask = this.state.stroke;
    if (!mask) return;
    if (this.tool === "wand") {
      this.abort();
      return void this.selectColor(this.points[0], this.how);
    }
    if (this.outline) fillPolygon(mask, this.outline, this.value);
    if (this.showsExample()) mask.data = addedApart(this.state.mask, mask).data;
    this.leave();
    this.state.endStroke();
  }

  // The wand: what is connected to a point, { x, y } in the mask, and of its color. It replaces the mask, is added to it
  // ("add"), or taken from it ("erase"); a finger ("tap") adds, or takes away what is painted.
  selectColor(point, how) {
    const { size } = this;
    const at = { x: Math.floor(point.x), y: Math.floor(point.y) };
    if (at.x < 0 || at.y < 0 || at.x >= size.width || at.y >= size.height) return;
    if (!this.bitmap) { // of a result that was kept by this very click
      this.onceShown = () => this.selectColor(point, how);
      return;
    }
    const found = floodFill(this.imagePixels(), size, at, Math.round(255 * this.tolerance));
    const selection = grow(found, Math.max(1, Math.round(Math.max(size.width, size.height) * WAND_MARGIN)));
    const { mask } = this.state;
    const painted = mask.data[at.y * size.width + at.x] > 0;
    const value = how === "erase" || (how === "tap" && painted) ? 0 : this.paintValue;
    this.state.paint(fillSelection(how === "paint" ? blank(size) : mask, selection, value));
  }

  // What the canvas shows of the image, rgba in the mask's size.
  imagePixels() {
    const { width, height } = this.size;
    const context = createCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(this.bitmap, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  // The wand by keys: its mark moves by so many steps, or by so many pixels.
  moveWand(dx, dy, inPixels) {
    const { width, height } = this.size;
    const length = inPixels ? 1 : Math.max(1, Math.max(width, height) * WAND_STEP);
    const { x, y } = this.wandPlace ?? { x: width / 2, y: height / 2 };
    const within = (value, most) => Math.min(Math.max(value, 0.5), most - 0.5);
    this.wandPlace = { x: within(x + dx * length, width), y: within(y + dy * length, height) };
    this.cursor = { ...toScreen(this.view, this.wandPlace), radius: WAND_RADIUS / this.view.scale };
    this.requestRender();
  }

  // Where its mark is.
  useWand(how) {
    if (!this.wandPlace) this.moveWand(0, 0);
    this.begin(toScreen(this.view, this.wandPlace), how);
    this.end();
    this.moveWand(0, 0);
  }

  abort() {
    this.leave();
    this.state.endStroke(false);
  }

  leave() {
    Object.assign(this, { outline: null, overlayMask: null });
    this.requestRender();
  }

  // point: null where the pointer has left.
  hover(point) {
    const strength = this.tool === "brush" && !this.state.stroke ? this.strength * OPACITY : 0; // before a stroke
    this.cursor = point && this.isBrush() ? { x: point.x, y: point.y, radius: this.brushRadius, strength } : null;
    this.requestRender();
  }
}
