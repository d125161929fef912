// Images on their way to the sketchpad: from files, from the server, from before a reload, from a link.
// An image is { path (on the server), width, height, view (the path of a copy that any browser can show) }.
import { fileUrl, NO_ANSWER, promptBox, whenPresent } from "./gradio.js";
import { maskFromPixels, maskSize, pack, unpack } from "./mask.js";

const SESSION = "imagebart-sketchpad";
const [DATABASE, FILES] = ["imagebart", "files"];
const MAX_AGE = 24 * 3600e3; // milliseconds that a file is kept in the browser
const HASH = "#share=";
const COPIED = "The link is copied: it holds image, mask, prompt, seed and settings. Your own image is kept for an hour.";

export const loadBitmap = async (url) => {
  const bitmap = new Image();
  bitmap.src = url;
  await bitmap.decode();
  return bitmap;
};

export const createCanvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

// A mask of `size` from an image's address; null where it has another shape. Rejects where there is no image.
export const importMask = async (url, size) => {
  const bitmap = await loadBitmap(url);
  const [width, height] = [bitmap.naturalWidth, bitmap.naturalHeight];
  const context = createCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return maskFromPixels(context.getImageData(0, 0, width, height).data, width, height, size);
};

// What survives a reload. The tab's own storage: the image's record, the mask, the prompt, the history.

export const saveInTab = (name, value) => {
  try {
    sessionStorage.setItem(`${SESSION}-${name}`, JSON.stringify(value));
  } catch { // full, or not allowed: then it is lost at a reload
    sessionStorage.removeItem(`${SESSION}-${name}`);
  }
};

export const loadFromTab = (name) => {
  try {
    return JSON.parse(sessionStorage.getItem(`${SESSION}-${name}`));
  } catch {
    return null;
  }
};

// The browser's database: the images' files, for a server that has deleted them.

const openDatabase = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(FILES, { keyPath: "path" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const inDatabase = async (mode, act) => {
  const database = await openDatabase();
  try {
    return await new Promise((resolve, reject) => {
      const request = act(database.transaction(FILES, mode).objectStore(FILES));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } finally {
    database.close();
  }
};

const storeFile = async (path, blob) => {
  try {
    const all = await inDatabase("readonly", (files) => files.getAll());
    for (const old of all.filter(({ when }) => Date.now() - when > MAX_AGE)) {
      await inDatabase("readwrite", (files) => files.delete(old.path));
    }
    await inDatabase("readwrite", (files) => files.put({ path, blob, when: Date.now() }));
  } catch { // a private window may have no database
    return;
  }
};

const storedFile = async (path) => {
  try {
    return (await inDatabase("readonly", (files) => files.get(path)))?.blob ?? null;
  } catch {
    return null;
  }
};

export class ImageLoader {
  // server: { open_image }; upload: sends a file to it, of at most maxBytes; state: where images go; say: shows a sentence.
  constructor({ server, upload, maxBytes, state, say }) {
    Object.assign(this, { server, upload, maxBytes, state, say, request: 0 });
  }

  // An image that the server has, with a packed mask, and words where these come with it. A file that is still on its way is
  // dropped.
  open(image, mask = "", words = null, movable = true) {
    this.request += 1;
    const { width, height } = maskSize(image);
    this.state.open(image, unpack(mask, width, height), words, movable);
  }

  // A file becomes the image: { image, made (whether this page made it) }; null where it did not.
  async openFile(file) {
    const request = ++this.request;
    if (file.size > this.maxBytes) return this.refuse("This file is larger than 40 MB; make it smaller.");
    this.say("Opening the image …");
    const answer = await this.send(file);
    if (request !== this.request) return null;
    if (answer.error) return this.refuse(answer.error);
    await new Promise((act) => this.state.onArrival(act));
    if (request !== this.request) return null;
    this.say("");
    this.state.open(answer.image);
    storeFile(answer.image.path, file);
    return answer;
  }

  // { image, made } or { error }
  async send(file) {
    try {
      const { path } = await this.upload(file);
      return await this.server.open_image(path);
    } catch {
      return NO_ANSWER;
    }
  }

  refuse(sentence) {
    this.say(sentence);
    return null;
  }

  // What was there before a reload; false where nothing was.
  restore() {
    const before = loadFromTab("now");
    if (!before?.image) return false;
    this.state.version = before.version;
    this.open(before.image, before.mask, loadFromTab("words"), before.movable);
    this.ensureOnServer(before.image).then((found) =>
      found || this.say("The server no longer has this image; upload it again."));
    return true;
  }

  // The server may have deleted the image: then it gets the file again. False where nobody has it any more.
  async ensureOnServer(image) {
    const answer = await this.server.open_image(image.path).catch(() => null);
    if (answer?.image) return true;
    const blob = answer && (await storedFile(image.path));
    const sent = blob && (await this.send(new File([blob], "image.png", { type: blob.type })));
    if (!sent?.image) return false;
    this.state.rename(image.path, sent.image);
    storeFile(sent.image.path, blob);
    return true;
  }

  // A copy of the image's file into the browser's database.
  async store(image) {
    const reply = await fetch(fileUrl(image.path)).catch(() => null);
    if (reply?.ok) await storeFile(image.path, await reply.blob());
  }
}

const MAX_UNPACKED = 16e6; // bytes of a link's JSON; the largest mask takes six million

// The bytes after a stream; throws where they are more than MAX_UNPACKED, without reading on.
const pipe = async (bytes, stream) => {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const chunks = [];
  for (let size = 0, part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > MAX_UNPACKED) {
      reader.cancel().catch(() => {});
      throw new RangeError("too long");
    }
    chunks.push(part.value);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
};

// JSON, compressed, as letters, digits, - and _.
export const encodeLink = async (value) => {
  const bytes = await pipe(new TextEncoder().encode(JSON.stringify(value)), new CompressionStream("deflate-raw"));
  const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
};

// The value; null for anything that `encodeLink` did not return.
export const decodeLink = async (text) => {
  try {
    const base64 = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await pipe(Uint8Array.from(base64, (char) => char.charCodeAt(0)), new DecompressionStream("deflate-raw"));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
};

// A page without HTTPS may not write to the clipboard: then the text is shown, to be copied by hand.
const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    window.prompt("Copy this:", text);
    return false;
  }
};

// Links to what is on the page: image, mask, prompt, seed and settings are in the address, behind the "#".
export class Sharing {
  constructor(pad) {
    this.pad = pad;
    imagebart.on("share", (controls) => this.copyLink(controls));
    document.addEventListener("click", async ({ target }) => {
      if (target.closest?.("#copy-words") && (await copyText(promptBox()?.value ?? ""))) pad.say("The words are copied.");
    });
  }

  // controls: the values of the page's controls, by name.
  async copyLink(controls) {
    const { server, state } = this.pad;
    const { token, error } = state.image ? await server.link_token(state.image.path).catch(() => NO_ANSWER) : {};
    if (error) return this.pad.say(error);
    const link = new URL(location.href);
    const { chosen: mode } = this.pad.modes;
    link.hash = HASH + (await encodeLink({ controls, token, mode, mask: state.mask ? pack(state.mask) : "", movable: state.movable }));
    return this.pad.say((await copyText(link.href)) ? COPIED : "");
  }

  // Open what the page's address holds. False where it holds no image.
  async openLink() {
    if (!location.hash.startsWith(HASH)) return false;
    const shared = await decodeLink(location.hash.slice(HASH.length));
    // A reload restores what is there then.
    window.history.replaceState(null, "", location.pathname + location.search);
    if (!shared) return this.refuse("This link cannot be read: it may have been cut. Ask for it again.");
    whenPresent("channel-open_link", () => imagebart.send("open_link", shared.controls));
    if (!shared.token) return false;
    const { image, error } = await this.pad.server.open_image(shared.token).catch(() => NO_ANSWER);
    if (error) return this.refuse(error);
    const { words } = shared.controls ?? {};
    this.pad.loader.open(image, shared.mask, typeof words === "string" ? words : null, shared.movable === true);
    this.pad.modes.choose(shared.mode);
    return true;
  }

  refuse(sentence) {
    this.pad.say(sentence);
    return false;
  }
}
