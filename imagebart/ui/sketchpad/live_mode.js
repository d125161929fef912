// Live: every finished stroke, and every pause in typing, regenerates at once: as a draft with one scale for the moment, and
// as the settings say when the hand rests. A newer one ends the older. Its result is a preview that Keep keeps.
import { click, promptBox } from "./gradio.js";
import { bounds } from "./mask.js";

const PAUSE = 350; // milliseconds without a key, after which a prompt is a pause's
const REST = 1000; // milliseconds without a stroke or a key, after which the hand rests
const MODES = ["fill", "remove", "expand"]; // of Edit, see modes.js
const AGAIN = 100; // milliseconds until it is looked again whether the draft is done

export class LiveMode {
  // Whether it is on says parts.live, a check box.
  constructor(pad) {
    Object.assign(this, { pad, kind: "", kinds: new Map(), timers: [] });
    pad.parts.live.addEventListener("change", () => (this.on ? this.request() : this.stop()));
    document.addEventListener("input", ({ target }) => {
      if (!this.on || target !== promptBox()) return;
      this.stop();
      this.later(() => this.run("draft"), PAUSE);
      this.later(() => this.refine(), PAUSE + REST);
    });
  }

  get on() {
    return this.pad.parts.live.checked;
  }

  // Nothing that was asked for is wanted any more.
  stop() {
    this.timers.splice(0).forEach(clearTimeout);
    if (this.kinds.get(this.pad.runState.data.runName)) this.pad.runState.cancel();
  }

  later(act, milliseconds) {
    this.timers.push(setTimeout(act, milliseconds));
  }

  // The mask has changed, or live has begun.
  request() {
    this.stop();
    this.run("draft");
    this.later(() => this.refine(), REST);
  }

  // A draft that goes on is done first.
  refine() {
    if (this.pad.runState.state) this.later(() => this.refine(), AGAIN);
    else this.run("refined");
  }

  // Never during a stroke, whose end asks again; never without a mask, nor in a mode that finds one by itself.
  run(kind) {
    const { mask, stroke } = this.pad.state;
    if (stroke || !mask || !bounds(mask) || !MODES.includes(this.pad.modes.chosen)) return;
    this.kind = kind;
    click("edit");
  }

  // A run of this name starts. byHand: somebody pressed a button; then it is none of these.
  started(name, byHand) {
    const kind = byHand ? "" : this.kind;
    this.kinds = new Map([[name, kind]]);
    this.kind = "";
    return kind;
  }

  kindOf(name) {
    return this.kinds.get(name) ?? "";
  }

  // Whether a stroke goes on from the mask of the result that is shown, and does not keep it.
  staysOn(review) {
    return this.on && (!review.finished || review.run.task === "edit");
  }
}
