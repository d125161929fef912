// Images on their way to the sketchpad: from files, from the server, from before a reload, from a link.
// An image is { path (on the server), width, height, view (the path of a copy that any browser can show), mask_size ({ width,
// height } of what is painted on it) }.
import { fileUrl, whenPresent } from "./gradio.js";
import { unpack } from "./mask.js";

const SERVER_FORMATS = /^(.PNG|\xff\xd8\xff|RIFF....WEBP)/s; // how a PNG, a JPEG and a WebP begin: all that the server reads
const SESSION = "imagebart-sketchpad";
const COPIES = "imagebart";
const MAX_AGE = 24 * 3600e3; // milliseconds that a copy is kept in the browser
const HASH = "#share=";
const COPIED = "The link is copied: it holds image, mask, prompt, seed and settings. Your own image is kept for an hour.";

export const loadBitmap = async (url) => {
  const bitmap = new Image();
  bitmap.src = url;
  await bitmap.decode();
  return bitmap;
};

export const createCanvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

// A file as the server reads it: of another kind, as a PNG of what the browser shows. What the browser cannot show stays as it
// is, and the server says so.
const asServerFormat = async (file) => {
  const start = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  if (SERVER_FORMATS.test(String.fromCharCode(...start))) return file;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return file;
  const canvas = createCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const png = await new Promise((done) => canvas.toBlob(done));
  return png ? new File([png], "image.png", { type: png.type }) : file;
};

// What survives a reload, in the tab's own storage: the image's record, the mask, the prompt, the history. False where the
// storage is full, or forbidden as in some frames: then nothing of that name is there after a reload.
export const saveInTab = (name, value) => {
  try {
    sessionStorage.removeItem(`${SESSION}-${name}`);
    sessionStorage.setItem(`${SESSION}-${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
};

export const loadFromTab = (name) => {
  try {
    return JSON.parse(sessionStorage.getItem(`${SESSION}-${name}`));
  } catch {
    return null;
  }
};

// The browser's copies of images, for a server that has deleted them. Both fail without HTTPS, and in some private windows.

export const storeCopy = async (path) => {
  const copies = await caches.open(COPIES);
  for (const request of await copies.keys()) {
    const { headers } = await copies.match(request);
    if (Date.now() - Date.parse(headers.get("date")) > MAX_AGE) await copies.delete(request);
  }
  await copies.add(fileUrl(path));
};

const findCopy = async (path) => (await caches.match(fileUrl(path), { cacheName: COPIES }))?.blob();

export class ImageLoader {
  // server: { open_image }; upload: sends a file to it, of at most maxBytes; state: where images go; say: shows a sentence.
  constructor({ server, upload, maxBytes, state, say }) {
    Object.assign(this, { server, upload, maxBytes, state, say, request: 0 });
  }

  // An image that the server has, with a packed mask, and words where these come with it. A file that is still on its way is
  // dropped.
  open(image, mask = "", words = null, movable = true) {
    this.request += 1;
    this.state.open(image, unpack(mask, image.mask_size), words, movable);
  }

  // A file becomes the image: { image, made (whether this page made it) }; null where it did not.
  async openFile(file) {
    const request = ++this.request;
    this.say("Opening the image …");
    const answer = await this.send(file);
    if (request !== this.request) return null;
    this.say(answer.error ?? "");
    if (answer.error) return null;
    await this.state.settled();
    if (request !== this.request) return null;
    this.state.open(answer.image);
    return answer;
  }

  // What the server answers about a file; { error } where it gets none.
  async send(file, ask = this.server.open_image) {
    const sent = await asServerFormat(file);
    if (sent.size > this.maxBytes) return { error: "This file is larger than 40 MB; make it smaller." };
    const uploaded = await this.upload(sent).catch(() => null);
    return uploaded ? ask(uploaded.path) : { error: "The file did not reach the server. Please try again in a moment." };
  }

  // What was there before a reload; false where nothing was.
  restore() {
    const saved = loadFromTab("now");
    if (!saved?.image) return false;
    this.state.version = saved.version;
    this.open(saved.image, saved.mask, loadFromTab("words"), saved.movable);
    this.ensureOnServer(saved.image).then((present) =>
      present || this.say("The server no longer has this image; upload it again."));
    return true;
  }

  // The server may have deleted the image: then it gets the copy. False where nobody has it any more.
  async ensureOnServer(image) {
    if ((await this.server.open_image(image.path)).image) return true;
    const copy = await findCopy(image.path).catch(() => null);
    const sent = copy && (await this.send(new File([copy], "image.png", { type: copy.type })));
    if (!sent?.image) return false;
    this.state.rename(image.path, sent.image);
    return true;
  }
}

// What comes out of a stream that bytes go into.
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

// Links to what is on the page: image, mask, prompt, seed and settings are in the address, behind the "#".
export class Sharing {
  constructor(pad) {
    this.pad = pad;
  }

  // controls: the values of the page's controls, by name.
  async copyLink(controls) {
    const { image, mask, movable, mode } = this.pad.props.value;
    const { token, error } = image ? await this.pad.server.link_token(image) : {};
    if (error) return this.pad.say(error);
    const link = new URL(location.href);
    const words = this.pad.prompt.read() ?? "";
    link.hash = HASH + (await encodeLink({ controls: { ...controls, words }, token, mode, mask, movable }));
    return this.pad.say((await copyText(link.href)) ? COPIED : "");
  }

  // Open what the page's address holds. False where it holds no image.
  async openLink() {
    if (!location.hash.startsWith(HASH)) return false;
    const shared = await decodeLink(location.hash.slice(HASH.length));
    // A reload restores what is there then.
    window.history.replaceState(null, "", location.pathname + location.search);
    if (!shared) return void this.pad.say("This link cannot be read: it may have been cut. Ask for it again.");
    whenPresent("channel-open_link", () => imagebart.send("open_link", shared.controls));
    if (!shared.token) return false;
    const { image, error } = await this.pad.server.open_image(shared.token);
    if (error) return void this.pad.say(error);
    const { words } = shared.controls ?? {};
    this.pad.loader.open(image, shared.mask, typeof words === "string" ? words : null, shared.movable === true);
    this.pad.modes.choose(shared.mode);
    return true;
  }
}
