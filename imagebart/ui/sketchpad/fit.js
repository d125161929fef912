// What Edit will change. The server is asked after every change of the image, the mask, the words or the settings: one
// question at a time, and while one is not answered, only the last of those that follow waits. An answer to an older
// question counts no more.
const PAUSE = 120; // milliseconds without a change before the server is asked
export const REST = 300; // the same, of the words

export class Fit {
  // words: reads the prompt; send: asks the server a question of this number, or returns false where there is nothing to ask;
  // show: called with the answer to the last question, {} where nothing was asked, and null while it is not known.
  constructor({ words, send, show }) {
    Object.assign(this, { words, send, show, number: 0, asked: null, timer: null, before: null });
  }

  // Something has changed.
  change(pause = PAUSE) {
    this.number += 1;
    this.before = this.words();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.ask();
    }, pause);
    this.show(null);
  }

  changeWords() {
    if (this.words() !== this.before) this.change(REST);
  }

  ask() {
    if (this.asked !== null) return;
    if (this.send(this.number)) this.asked = this.number;
    else this.show({});
  }

  // An answer; one without a number says that none will come.
  receive({ question = this.asked, ...answer }) {
    if (question !== this.asked) return;
    this.asked = null;
    if (question === this.number) this.show(answer);
    else if (this.timer === null) this.ask();
  }

  // No answer is waited for any longer.
  again() {
    this.asked = null;
    this.change();
  }
}
