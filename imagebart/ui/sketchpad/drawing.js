// What the sketchpad shows, on one plain 2D canvas: a mask of up to a megapixel is put over its picture in a few
// milliseconds, without a library, and looks the same with and without a graphics card.
import { sheet } from "./pictures.js";
import { fit, toScreen } from "./view.js";

const TINT = [255, 61, 113, 153]; // BRUSH_RGB and BRUSH_OPACITY of picture.py
const PIXELATED = 6; // screen pixels for one of the picture's from which its pixels are shown as squares

// The mask as a canvas in the colour of the brush.
export const tintOf = (mask, page = sheet(mask.width, mask.height)) => {
  const pixels = new Uint32Array(mask.data.length);
  const colour = (TINT[2] << 16) | (TINT[1] << 8) | TINT[0];
  for (let i = 0; i < pixels.length; i++) {
    if (mask.data[i]) pixels[i] = ((Math.ceil((mask.data[i] * TINT[3]) / 255) << 24) | colour) >>> 0;
  }
  page.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), mask.width, mask.height), 0, 0);
  return page;
};

// scene: { view, size (the mask's), picture (an image or null), tint, grid, cursor, outline, review, frame, ratio }
export const draw = (pen, scene) => {
  const { frame, ratio, view, size } = scene;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, frame.width, frame.height);
  if (!size) return drawReview(pen, scene);
  const place = [view.x, view.y, size.width * view.scale, size.height * view.scale];
  pen.imageSmoothingEnabled = view.scale < PIXELATED;
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff";
  pen.fillRect(...place);
  if (scene.picture) pen.drawImage(scene.picture, ...place);
  if (scene.review) return drawReview(pen, scene, place);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(scene.tint, ...place);
  if (scene.grid) drawGrid(pen, scene);
  if (scene.outline) drawOutline(pen, scene.outline.map((point) => toScreen(view, point)));
  return drawCursor(pen, scene);
};

// The picture of a run: over the picture that it changes, right of the wipe; or by itself in the middle.
const drawReview = (pen, { review, frame }, place) => {
  if (!review?.image) return;
  const { image, whole } = review;
  pen.save();
  if (whole || !place) {
    pen.clearRect(0, 0, frame.width, frame.height);
    const alone = { width: image.naturalWidth, height: image.naturalHeight };
    const view = fit(alone, frame);
    pen.drawImage(image, view.x, view.y, alone.width * view.scale, alone.height * view.scale);
  } else {
    const [x, y, width, height] = place;
    pen.beginPath();
    pen.rect(x + width * review.wipe, y, width * (1 - review.wipe), height);
    pen.clip();
    pen.drawImage(image, x, y, width, height);
  }
  pen.restore();
};

const twice = (pen, line) => {
  for (const [colour, thickness] of [["rgba(15, 23, 42, 0.75)", 2.5], ["#fff", 1]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    line();
  }
};

// The cells that an edit redraws, as the server says: { box in mask's pixels, side, cells }.
const drawGrid = (pen, { grid, view }) => {
  const cell = (grid.box.side / grid.side) * view.scale;
  const corner = toScreen(view, { x: grid.box.left, y: grid.box.top });
  twice(pen, () => {
    [...grid.cells].forEach((hit, i) => {
      if (hit !== "1") return;
      pen.strokeRect(corner.x + (i % grid.side) * cell, corner.y + Math.floor(i / grid.side) * cell, cell, cell);
    });
  });
};

const drawOutline = (pen, points) => {
  twice(pen, () => {
    pen.beginPath();
    points.forEach(({ x, y }) => pen.lineTo(x, y));
    pen.closePath();
    pen.stroke();
  });
};

const drawCursor = (pen, { cursor, view }) => {
  if (!cursor) return;
  twice(pen, () => {
    pen.beginPath();
    pen.arc(cursor.x, cursor.y, Math.max(2, cursor.radius * view.scale), 0, 2 * Math.PI);
    pen.stroke();
  });
};
