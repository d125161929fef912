// Pictures on their way to the sketchpad: from files, from the server, from before a reload, from a link.
// A picture is { path (on the server), width, height, view (the path of a copy that any browser can show) }.
import { fileUrl, promptBox, whenPresent } from "./gradio.js";
import { maskFromPixels, maskSize, pack, unpack } from "./mask.js";

const MAX_FILE_BYTES = 40 * 2 ** 20; // as MAX_FILE in Python
const SESSION = "imagebart-sketchpad";
const [DATABASE, FILES] = ["imagebart", "files"];
const MAX_AGE = 24 * 3600e3; // milliseconds that a file is kept in the browser
const HASH = "#share=";
const COPIED = "The link is copied: it holds image, mask, prompt, seed and settings. Your own image is kept for an hour.";
const NO_ANSWER = { error: "The server did not answer." };

export const loadImage = async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
};

export const createCanvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

// A mask of `size` from an image's address; null where it has another shape. Rejects where there is no image.
export const importMask = async (url, size) => {
  const image = await loadImage(url);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = createCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return maskFromPixels(context.getImageData(0, 0, width, height).data, width, height, size);
};

// What survives a reload. The tab's own storage: the picture's record, the mask, the prompt, the history.

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

// The browser's database: the pictures' files, for a server that has deleted them.

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
  // server: { take }; upload: sends a file to it; state: where pictures go; say: shows a sentence.
  constructor({ server, upload, state, say }) {
    Object.assign(this, { server, upload, state, say, request: 0 });
  }

  // A picture that the server has, with a packed mask. A file that is still on its way is dropped.
  open(picture, mask = "") {
    this.request += 1;
    const { width, height } = maskSize(picture);
    this.state.open(picture, unpack(mask, width, height));
  }

  // A file becomes the picture: { picture, made (whether this page made it) }; null where it did not.
  async openFile(file) {
    const request = ++this.request;
    if (file.size > MAX_FILE_BYTES) return this.refuse("This file is larger than 40 MB; make it smaller.");
    this.say("Opening the image …");
    const answer = await this.send(file);
    if (request !== this.request) return null;
    if (answer.error) return this.refuse(answer.error);
    this.say("");
    this.state.open(answer.picture);
    storeFile(answer.picture.path, file);
    return answer;
  }

  // { picture, made } or { error }
  async send(file) {
    try {
      const { path } = await this.upload(file);
      return await this.server.take(path);
    } catch {
      return { error: "The server could not take this image. Please try again in a moment." };
    }
  }

  refuse(sentence) {
    this.say(sentence);
    return null;
  }

  // What was there before a reload; false where nothing was.
  restore() {
    const before = loadFromTab("now");
    if (!before?.picture) return false;
    this.state.version = before.version;
    this.open(before.picture, before.mask);
    this.ensureOnServer(before.picture).then((found) =>
      found || this.say("The server no longer has this image; upload it again."));
    return true;
  }

  // The server may have deleted the picture: then it gets the file again. False where nobody has it any more.
  async ensureOnServer(picture) {
    const answer = await this.server.take(picture.path).catch(() => null);
    if (answer?.picture) return true;
    const blob = answer && (await storedFile(picture.path));
    const sent = blob && (await this.send(new File([blob], "picture.png", { type: blob.type })));
    if (!sent?.picture) return false;
    this.state.rename(picture.path, sent.picture);
    storeFile(sent.picture.path, blob);
    return true;
  }

  // A copy of the picture's file into the browser's database.
  async store(picture) {
    const reply = await fetch(fileUrl(picture.path)).catch(() => null);
    if (reply?.ok) await storeFile(picture.path, await reply.blob());
  }
}

const pipe = async (bytes, stream) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());

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

// Links to what is on the page: picture, mask, prompt, seed and settings are in the address, behind the "#".
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
    const { token, error } = state.picture ? await server.lend(state.picture.path).catch(() => NO_ANSWER) : {};
    if (error) return this.pad.say(error);
    const link = new URL(location.href);
    link.hash = HASH + (await encodeLink({ controls, token, mask: state.mask ? pack(state.mask) : "" }));
    return this.pad.say((await copyText(link.href)) ? COPIED : "");
  }

  // Open what the page's address holds. False where it holds no picture.
  async openLink() {
    if (!location.hash.startsWith(HASH)) return false;
    const shared = await decodeLink(location.hash.slice(HASH.length));
    // A reload restores what is there then.
    window.history.replaceState(null, "", location.pathname + location.search);
    if (!shared) return this.refuse("This link cannot be read: it may have been cut. Ask for it again.");
    whenPresent("channel-open_link", () => imagebart.send("open_link", shared.controls));
    if (!shared.token) return false;
    const { picture, error } = await this.pad.server.take(shared.token).catch(() => NO_ANSWER);
    if (error) return this.refuse(error);
    this.pad.loader.open(picture, shared.mask);
    return true;
  }

  refuse(sentence) {
    this.pad.say(sentence);
    return false;
  }
}
