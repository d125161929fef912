// A link to what is on the page: picture, mask, words, seed and settings, packed into the address behind the "#".
import { pack } from "./bitmap.js";
import { promptBox, whenThere } from "./around.js";

const NAME = "share=";
const COPIED = "The link is copied: it holds picture, mask, words, seed and settings. A picture of your own lives for an hour.";

const through = async (bytes, stream) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());

// JSON as letters, digits, - and _.
export const packed = async (what) => {
  const bytes = await through(new TextEncoder().encode(JSON.stringify(what)), new CompressionStream("deflate-raw"));
  const letters = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return letters.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
};

// What was packed; null for anything else.
export const unpacked = async (text) => {
  try {
    const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await through(Uint8Array.from(letters, (letter) => letter.charCodeAt(0)), new DecompressionStream("deflate-raw"));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
};

// A page that came over an unsafe line may not write to the clipboard: then the text is shown, to be copied by hand.
const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    window.prompt("Copy this:", text);
    return false;
  }
};

export class Sharing {
  // pad: the sketchpad.
  constructor(pad) {
    this.pad = pad;
    addEventListener("imagebart-share", ({ detail }) => this.share(detail));
    document.addEventListener("click", async ({ target }) => {
      if (target.closest?.("#copy-words") && (await copy(promptBox()?.value ?? ""))) pad.say("The words are copied.");
    });
  }

  // controls: the values of the page's controls, by name.
  async share(controls) {
    const { server, state } = this.pad;
    const { token, error } = state.picture ? await server.lend(state.picture.path).catch(() => ({ error: "The server did not answer." })) : {};
    if (error) return this.pad.say(error);
    const link = new URL(location.href);
    link.hash = NAME + (await packed({ controls, token, mask: state.mask ? pack(state.mask) : "" }));
    return this.pad.say((await copy(link.href)) ? COPIED : "");
  }

  // What the page's address holds comes onto the page. False where it holds nothing.
  async open() {
    if (!location.hash.startsWith(`#${NAME}`)) return false;
    const shared = await unpacked(location.hash.slice(NAME.length + 1));
    // A reload goes on from what is there then.
    window.history.replaceState(null, "", location.pathname + location.search);
    if (!shared) return this.refuse("This link cannot be read: it may have been cut. Ask for it again.");
    whenThere("wire-shared", () => dispatchEvent(new CustomEvent("imagebart-shared", { detail: shared.controls })));
    if (!shared.token) return false;
    const { picture, error } = await this.pad.server.take(shared.token).catch(() => ({ error: "The server did not answer." }));
    if (error) return this.refuse(error);
    this.pad.opening.place(picture, shared.mask);
    return true;
  }

  refuse(sentence) {
    this.pad.say(sentence);
    return false;
  }
}
