// What the main button does, chosen above the prompt. A model that draws layers fills and removes, no more.
import { whenPresent } from "./gradio.js";
import { blank, fillRect } from "./mask.js";

// The button's label, and what a person does next; the mask is shown in the modes that take one.
export const MODES = {
  fill: { verb: "Edit", hint: "Paint a place and say what should be there.", painted: true },
  remove: { verb: "Remove", hint: "Paint over what should go.", painted: true },
  background: { verb: "Change background", hint: "Say how it should be, such as “blue”.", painted: false },
  expand: { verb: "Edit", hint: "Choose where the image grows.", painted: true },
  vary: { verb: "Vary", hint: "Another image like this one.", painted: false },
};
const SHARE = 1 / 4; // of a side that the image grows by

const around = (across, down) => {
  const [left, top] = [Math.floor(across / 2), Math.floor(down / 2)];
  return { left, top, right: across - left, bottom: down - top };
};

const toShape = (ratio) => ({ width, height }) =>
  around(Math.max(Math.round(height * ratio) - width, 0), Math.max(Math.round(width / ratio) - height, 0));

// By how many pixels an image of { width, height } grows, by the names of the buttons; one that has the shape does not.
export const GROWTH = {
  expandSquare: toShape(1),
  expandWide: toShape(16 / 9),
  expandLeft: ({ width }) => ({ ...around(0, 0), left: Math.ceil(width * SHARE) }),
  expandRight: ({ width }) => ({ ...around(0, 0), right: Math.ceil(width * SHARE) }),
  expandUp: ({ height }) => ({ ...around(0, 0), top: Math.ceil(height * SHARE) }),
  expandDown: ({ height }) => ({ ...around(0, 0), bottom: Math.ceil(height * SHARE) }),
};

// The mask of an image that has grown: what is new; and within the image before, what `mask` paints, if there is one.
export const grownMask = (image, { left, top, right, bottom }, mask = null) => {
  const { width, height } = image.mask_size;
  const scale = width / image.width;
  const grown = blank(image.mask_size);
  grown.data.fill(255);
  const inner = { left: Math.ceil(left * scale), top: Math.ceil(top * scale) };
  const end = { x: Math.floor((image.width - right) * scale), y: Math.floor((image.height - bottom) * scale) };
  fillRect(grown, inner.left, inner.top, end.x, end.y, 0);
  for (let y = inner.top; mask && y < end.y; y++) {
    for (let x = inner.left; x < end.x; x++) {
      const [u, v] = [(x - inner.left) / (end.x - inner.left), (y - inner.top) / (end.y - inner.top)];
      const before = mask.data[Math.floor(v * mask.height) * mask.width + Math.floor(u * mask.width)];
      if (before) grown.data[y * width + x] = before;
    }
  }
  return grown;
};

export class Modes {
  constructor(pad) {
    Object.assign(this, { pad, chosen: "fill", expanded: new Set() }); // expanded: images that have grown, by their paths
    whenPresent("mode", (choices) => choices.addEventListener("change", ({ target }) => this.choose(target.value)));
  }

  // By its name; one that is none changes nothing.
  choose(mode) {
    const { pad } = this;
    if (!Object.hasOwn(MODES, mode)) return;
    this.chosen = mode;
    whenPresent("mode", (choices) => (choices.querySelector(`[value="${mode}"]`).checked = true));
    document.documentElement.dataset.mode = mode;
    pad.canvas.showsMask = MODES[mode].painted;
    pad.sync();
    pad.fit.change();
    pad.say("");
  }

  // The image grows, by the name of a button; what is new is the mask.
  async expand(name) {
    const { pad } = this;
    const { image, mask, version } = pad.state;
    if (!image) return;
    const growth = GROWTH[name](image);
    if (!Object.values(growth).some(Boolean)) return void pad.say("The image has this shape already.");
    const { image: grown, error } = await pad.server.expand({ path: image.path, ...growth });
    if (error) return void pad.say(error);
    await pad.state.settled();
    if (pad.state.version !== version) return;
    const before = this.expanded.has(image.path) ? mask : null;
    this.expanded.add(grown.path);
    pad.state.open(grown, grownMask(grown, growth, before), null, false);
  }
}
