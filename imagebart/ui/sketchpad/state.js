// The sketchpad's state: a picture with its mask, and what was there before. The one place where either changes; each
// change has a version of its own and is told at once, so that nobody can see an older one. Nothing here knows the page.
import { blank, same } from "./bitmap.js";
import { Trail } from "./trail.js";

const LARGEST = 1024; // of the mask's longer side, as LARGEST_VIEW in picture.py

// A mask's size for a picture of { width, height }: the picture's own, or a bounded share of it; as view_size in picture.py.
export const maskSize = ({ width, height }) => {
  const scale = Math.min(Math.max(width, height), LARGEST) / Math.max(width, height);
  return { width: Math.max(1, round(width * scale)), height: Math.max(1, round(height * scale)) };
};

// Python's: halves to the even neighbour.
const round = (value) => {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
};

export class State {
  // told: called after every change, with the state.
  constructor(told, version = 0) {
    this.told = told;
    this.version = version;
    this.trail = new Trail();
    this.now = null; // { picture, mask }
  }

  get mask() {
    return this.now?.mask ?? null;
  }

  get picture() {
    return this.now?.picture ?? null;
  }

  // A picture comes, with a mask or an empty one. Undo leads back to what was there.
  open(picture, mask = null) {
    const { width, height } = maskSize(picture);
    this.change({ picture, mask: mask ?? blank(width, height) });
  }

  // The mask becomes another one.
  paint(mask) {
    if (!this.now || same(mask, this.now.mask)) return;
    this.change({ ...this.now, mask });
  }

  // The same picture under another name: the server had forgotten it. All stops that show it know it by that name, and
  // nothing has changed, so that what was asked of it goes on.
  rename(before, picture) {
    for (const stop of [this.now, ...this.trail.back, ...this.trail.forward]) {
      if (stop?.picture.path === before) stop.picture = picture;
    }
    this.told(this);
  }

  undo() {
    return this.go(this.now && this.trail.undo(this.now));
  }

  redo() {
    return this.go(this.now && this.trail.redo(this.now));
  }

  change(stop) {
    if (this.now) this.trail.leave(this.now);
    this.go(stop);
  }

  go(stop) {
    if (!stop) return false;
    this.now = stop;
    this.tell();
    return true;
  }

  tell() {
    this.version += 1;
    this.told(this);
  }
}
