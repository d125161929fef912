// What is asked of the model without a run: what Edit will change, "Select by prompt" and "Describe image", and whether it
// knows such images. Answers count only where what they are about is still there.
import { unpack } from "./mask.js";

const PAUSE = 120; // milliseconds without a change before it is asked what Edit will change
export const REST = 300; // the same, of the words
const ASKING = "Looking at the image …";
const SELECTED = "Place found from your words. Correct it, or go on.";

// What Edit will change: asked after every change of the image, the mask, the words or the settings, one question at a time;
// while one is not answered, only the last of those that follow waits.
export class Fit {
  // words: reads the prompt; ask: asks the server; show: called with the answer to the last question, and with null while it
  // is not known.
  constructor({ words, ask, show }) {
    Object.assign(this, { words, ask, show, number: 0, asking: false, timer: null, askedWords: null });
  }

  // Something has changed.
  change(pause = PAUSE) {
    this.number += 1;
    this.askedWords = this.words();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.update();
    }, pause);
    this.show(null);
  }

  changeWords() {
    if (this.words() !== this.askedWords) this.change(REST);
  }

  async update() {
    if (this.asking) return;
    const { number } = this;
    this.asking = true;
    const answer = await this.ask();
    this.asking = false;
    if (number === this.number) this.show(answer);
    else if (this.timer === null) this.update();
  }
}

export class Questions {
  constructor(pad) {
    Object.assign(this, { pad, number: 0 });
  }

  // What a function of the server answers about image, mask, words and settings.
  async ask(name) {
    const { server, props, controls, prompt, state } = this.pad;
    const answer = await server[name]({ ...props.value, ...controls, words: prompt.read() ?? "" });
    await state.settled();
    return answer;
  }

  // What Edit will change; {} where there is nothing to ask: without an image, and without a mask and words.
  async fit() {
    const { props, modes, prompt } = this.pad;
    const { image, mask } = props.value;
    const nothing = !image || modes.chosen === "vary" || !(mask || prompt.read()?.trim());
    return nothing ? {} : this.ask("fit");
  }

  // A mask that comes is painted like any other one.
  select() {
    return this.askByHand("select", ({ mask }, before) => {
      if (this.pad.state.mask !== before) return;
      this.pad.changeMask(() => unpack(mask, before), true);
      this.pad.say(SELECTED);
    });
  }

  // The answer becomes the prompt.
  describe() {
    return this.askByHand("describe", ({ caption }) => this.pad.changeWords(caption));
  }

  // Only the answer to the last question counts.
  async askByHand(name, act) {
    const { state, loader } = this.pad;
    state.finishStroke();
    const { image, mask } = state;
    const number = ++this.number;
    this.pad.say(ASKING);
    const answer = await this.ask(name);
    if (number !== this.number) return undefined;
    if (answer.deleted && state.image === image && (await loader.ensureOnServer(image))) return this.askByHand(name, act);
    if (state.image !== image) return undefined;
    this.pad.say(answer.error ?? "");
    return answer.error ? undefined : act(answer, mask);
  }

  // A sentence where the model does not know such images, "" where it does.
  async recognize() {
    const { image } = this.pad.state;
    const { note } = await this.ask("recognize");
    return image === this.pad.state.image ? note ?? "" : "";
  }
}
