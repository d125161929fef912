// The prompt, a text field of Gradio's: words that the model does not know are listed as they are typed, corrections and
// suggestions are put in by a click. The model's vocabulary is in #lexicon, as data; which unknown words it corrects the
// server answers a moment later.
import { whenPresent } from "./gradio.js";

// Letters, digits and marks make words, and symbols such as emoji; a 's or 't belongs to the word before it.
const WORD = /(\p{So}[\p{So}\p{M}]*|[\p{L}\p{N}\p{M}]+)(?:['’](?:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}]))?/giu;
const MAX_LISTED = 10; // unknown words
const DELAY = 150; // milliseconds without a change before the server is asked
const LOOK = 250; // milliseconds between two looks whether Gradio has changed the prompt, which fires no event

export const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

const normalized = (text) => text.trim().toLowerCase();

// A misspelt word as it was typed, by itself.
const asTyped = (word) => new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "giu");

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

export class Prompt {
  // check: asks the server which words of a prompt it does not know: { unknown, corrections }; change: called with other words
  // after a click; onChange: called when somebody has typed, or Gradio has written.
  constructor({ check, change, onChange }) {
    Object.assign(this, { check, change, onChange, unwritten: null, seen: [], lexicon: null, vocabulary: new Set() });
    document.addEventListener("input", ({ target }) => target === promptBox() && this.changed());
    document.addEventListener("click", ({ target }) => {
      const chip = target.closest?.("#suggestions [data-add]");
      const tab = target.closest?.("#suggestions [aria-controls]");
      if (chip) this.toggleSuggestion(chip.dataset.add);
      if (tab) toggleGroup(tab);
    });
    setInterval(() => this.look(), LOOK);
  }

  // Null where there is no prompt, or not yet.
  read() {
    return this.unwritten === null ? promptBox()?.value ?? null : null;
  }

  // What is written before the prompt is there, it gets when it comes.
  write(text) {
    const waits = this.unwritten !== null;
    this.unwritten = text;
    if (waits) return;
    whenPresent("prompt", () => {
      const [box, words] = [promptBox(), this.unwritten];
      this.unwritten = null;
      if (!box || box.value === words) return;
      Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, words);
      box.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }

  look() {
    const now = [promptBox()?.value, ...["#lexicon [data-words]", "#suggestions [data-add]"].map((part) => document.querySelector(part))];
    if (now.some((part, i) => part !== this.seen[i])) this.changed();
    this.seen = now;
  }

  changed() {
    this.refresh();
    this.onChange();
  }

  refresh() {
    const text = promptBox()?.value ?? "";
    this.readLexicon();
    this.showUnknown(this.unknownWords(text));
    this.showCorrections(text);
    const parts = text.split(",").map(normalized);
    for (const chip of document.querySelectorAll("#suggestions [data-add]")) {
      chip.setAttribute("aria-pressed", String(parts.includes(normalized(chip.dataset.add))));
    }
  }

  // Another model's vocabulary: what was known of its words counts no more.
  readLexicon() {
    const element = document.querySelector("#lexicon [data-words]");
    if (element === this.lexicon) return;
    this.lexicon = element;
    this.vocabulary = new Set(element ? JSON.parse(element.dataset.words) : []);
    this.corrected = new Set(); // unknown words for which the model has a correction, in lower case
    this.answer = { corrections: {} }; // the server's last one
  }

  outOfVocabulary(text) {
    const words = new Map();
    for (const [written, word] of text.normalize("NFC").matchAll(WORD)) {
      if (!this.vocabulary.has(word.toLowerCase())) words.set(written.toLowerCase(), words.get(written.toLowerCase()) ?? written);
    }
    return [...words.values()];
  }

  unknownWords(text) {
    if (!this.vocabulary.size) return [];
    if (this.answer.prompt === text) return this.answer.unknown;
    const words = this.outOfVocabulary(text);
    clearTimeout(this.timer);
    if (words.length) this.timer = setTimeout(() => this.ask(text), DELAY);
    return words.filter((word) => !this.corrected.has(word.toLowerCase()));
  }

  async ask(text) {
    const { lexicon } = this;
    const answer = await this.check(text);
    if (!answer.unknown || lexicon !== this.lexicon) return;
    this.answer = { prompt: text, ...answer };
    const unknown = answer.unknown.map((word) => word.toLowerCase());
    for (const word of this.outOfVocabulary(text).map((word) => word.toLowerCase())) {
      if (!unknown.includes(word)) this.corrected.add(word);
    }
    this.refresh();
  }

  showUnknown(unknown) {
    const line = document.getElementById("unknown");
    if (!line) return;
    line.hidden = !unknown.length;
    const marks = unknown.slice(0, MAX_LISTED).flatMap((word) => [" ", make("mark", { textContent: word })]);
    const more = unknown.length > MAX_LISTED ? ` and ${unknown.length - MAX_LISTED} more` : "";
    line.replaceChildren(...(unknown.length ? ["Not known to this model, will be ignored:", ...marks, more] : []));
  }

  // Each to be put into the prompt by a click.
  showCorrections(text) {
    const element = document.getElementById("corrections");
    if (!element) return;
    const corrections = Object.entries(this.answer.corrections).filter(([word]) => asTyped(word).test(text));
    element.hidden = !corrections.length;
    const shown = JSON.stringify(corrections);
    if (element.dataset.shown === shown) return;
    element.dataset.shown = shown;
    element.replaceChildren("Read as:", ...corrections.map(([word, correction]) => {
      const chip = make("button", { type: "button", className: "ib-chip", textContent: `${word} → ${correction}` });
      chip.addEventListener("click", () => {
        this.change(promptBox().value.replace(asTyped(word), correction));
        promptBox().focus();
      });
      return chip;
    }));
  }

  // A suggestion is added to the prompt, or taken out of it.
  toggleSuggestion(words) {
    const parts = (promptBox()?.value ?? "").split(",").map((part) => part.trim()).filter(Boolean);
    const others = parts.filter((part) => normalized(part) !== normalized(words));
    if (others.length === parts.length) others.push(words);
    this.change(others.join(", "));
  }
}

const toggleGroup = (tab) => {
  const open = tab.getAttribute("aria-expanded") === "true";
  for (const other of document.querySelectorAll("#suggestions [aria-controls]")) {
    const shown = other === tab && !open;
    other.setAttribute("aria-expanded", String(shown));
    const group = document.getElementById(other.getAttribute("aria-controls"));
    if (group) group.hidden = !shown;
  }
};
