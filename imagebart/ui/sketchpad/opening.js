// Pictures that come onto the sketchpad: examples, files, results; and what was there when the page was left.
import { unpack } from "./bitmap.js";
import { addressOf, load } from "./pictures.js";
import { maskSize } from "./state.js";
import { fileOf, keepFile, recall } from "./store.js";

const MOST_BYTES = 40 * 2 ** 20; // as MAX_FILE in launch.py

export class Opening {
  // server: { take }; upload: sends a file; state: where a picture goes; say: shows a sentence.
  constructor({ server, upload, state, say }) {
    Object.assign(this, { server, upload, state, say, asked: 0 });
  }

  // A picture that the server has, with a packed mask. What is on its way is no longer waited for.
  place(picture, mask = "") {
    this.asked += 1;
    const { width, height } = maskSize(picture);
    this.state.open(picture, unpack(mask, width, height));
  }

  // A file becomes the picture. True where it did, with "made" where this page made it.
  async file(file) {
    const asked = ++this.asked;
    if (file.size > MOST_BYTES) return this.refuse("This file is larger than 40 MB; make it smaller.");
    this.say("Opening the picture …");
    const answer = await this.send(file);
    if (asked !== this.asked) return null;
    if (answer.error) return this.refuse(answer.error);
    this.say("");
    this.state.open(answer.picture);
    keepFile(answer.picture.path, file);
    return answer;
  }

  // { picture, made } or { error }
  async send(file) {
    try {
      const { path } = await this.upload(file);
      return await this.server.take(path);
    } catch {
      return { error: "The server could not take this picture. Please try again in a moment." };
    }
  }

  refuse(sentence) {
    this.say(sentence);
    return null;
  }

  // What was on the page when it was left; false where nothing was.
  again() {
    const before = recall("now");
    if (!before?.picture) return false;
    this.state.version = before.version;
    this.place(before.picture, before.mask);
    this.found(before.picture).then((there) => there || this.say("The server no longer has this picture; upload it again."));
    return true;
  }

  // The server may have forgotten the picture: then it gets the file again. False where nobody has it any more.
  async found(picture) {
    const answer = await this.server.take(picture.path).catch(() => null);
    if (answer?.picture) return true;
    const blob = answer && (await fileOf(picture.path));
    const sent = blob && (await this.send(new File([blob], "picture.png", { type: blob.type })));
    if (!sent?.picture) return false;
    this.state.rename(picture.path, sent.picture);
    keepFile(sent.picture.path, blob);
    return true;
  }

  // Keep a picture's file, for a server that forgets it.
  async keep(picture) {
    const reply = await fetch(addressOf(picture.path)).catch(() => null);
    if (reply?.ok) await keepFile(picture.path, await reply.blob());
  }

  image(picture) {
    return load(addressOf(picture.view));
  }
}
