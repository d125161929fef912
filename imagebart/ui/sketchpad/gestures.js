// Fingers, pens and mice: one paints, two move and zoom. A pointer is { id, x, y }, in screen pixels; `does` has begin,
// go, end, abandon (a stroke), hover and pinch. Nothing here knows what is painted.

export class Gestures {
  constructor(does) {
    this.does = does;
    this.down = new Map();
    this.stroke = null; // the pointer that paints
    this.moves = false; // two fingers were down; nothing paints until all are up
  }

  press(pointer, how) {
    this.down.set(pointer.id, pointer);
    if (this.down.size > 1) {
      if (this.stroke !== null) this.does.abandon();
      this.stroke = null;
      this.moves = true;
    } else if (how === "pan") {
      this.moves = true;
    } else {
      this.stroke = pointer.id;
      this.does.begin(pointer, how);
    }
  }

  // points: all places since the last call, the last one now.
  move(id, points) {
    const now = { id, ...points[points.length - 1] };
    if (!this.down.has(id)) return this.does.hover(now);
    if (id === this.stroke) {
      for (const point of points) this.does.go(point);
      this.down.set(id, now);
      return undefined;
    }
    if (!this.moves) return undefined;
    const before = [...this.down.values()];
    this.down.set(id, now);
    return this.does.pinch(...between(before, [...this.down.values()]));
  }

  // The stroke ends here, though its pointer may still be down.
  finish() {
    if (this.stroke === null) return;
    this.stroke = null;
    this.does.end();
  }

  lift(id, broken = false) {
    if (!this.down.delete(id)) return;
    if (id === this.stroke) {
      this.stroke = null;
      if (broken) this.does.abandon();
      else this.does.end();
    }
    if (!this.down.size) this.moves = false;
  }
}

// How the fingers moved: { dx, dy, factor, at }, of their middle and their distance; `at` is where their middle was.
const between = (before, after) => {
  const middle = (points) => ({
    x: points.reduce((sum, point) => sum + point.x, 0) / points.length,
    y: points.reduce((sum, point) => sum + point.y, 0) / points.length,
  });
  const spread = (points) => (points.length < 2 ? 1 : Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) || 1);
  const [from, to] = [middle(before), middle(after)];
  return [{ dx: to.x - from.x, dy: to.y - from.y, factor: spread(after) / spread(before), at: from }];
};
