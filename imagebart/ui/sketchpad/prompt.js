// The prompt: words that the model does not know are listed soon after they are typed; a click corrects them, or adds others.
import { whenPresent } from "./gradio.js";

const MAX_LISTED = 10; // unknown words
const DELAY = 100; // milliseconds without a change before the server is asked about the words
const LOOK = 250; // milliseconds between two looks whether Gradio has changed the prompt, which fires no event

export const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

const normalized = (text) => text.trim().toLowerCase();

// A word as it was typed, by itself.
const asTyped = (word) => new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "giu");

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

export class Prompt {
  // check: asks the server which words of a prompt the model does not know, and which it corrects; change: called with other
  // words after a click; onChange: called when somebody has typed, or Gradio has written.
  constructor({ check, change, onChange }) {
    Object.assign(this, { check, change, onChange, unwritten: null, seen: [], answer: { unknown: [], corrections: {} } });
    document.addEventListener("input", ({ target }) => {
      if (target === promptBox()) this.changed();
      else if (target.id === "find-word") findWords(target.value);
    });
    document.addEventListener("click", ({ target }) => {
      const chip = target.closest?.("#words [data-add]");
      if (chip) this.toggleWords(chip.dataset.add);
    });
    setInterval(() => this.look(), LOOK);
  }

  // Null where there is no prompt, or not yet.
  read() {
    return this.unwritten === null ? promptBox()?.value ?? null : null;
  }

  // What is written before the prompt is there, it gets when it comes, unless somebody was quicker to type.
  write(text) {
    const [waits, early] = [this.unwritten !== null, !promptBox()];
    this.unwritten = text;
    if (waits) return;
    whenPresent("prompt", () => {
      const [box, words] = [promptBox(), this.unwritten];
      this.unwritten = null;
      if (!box || box.value === words || (early && box.value)) return;
      Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, words);
      box.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }

  // Another model has other words, and suggestions.
  look() {
    const now = [promptBox()?.value, document.querySelector("#words [data-add]"), document.querySelector("#model select")?.value];
    if (now.some((part, i) => part !== this.seen[i])) this.changed();
    this.seen = now;
  }

  changed() {
    this.show();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), DELAY);
    this.onChange();
  }

  async ask() {
    const text = promptBox()?.value ?? "";
    const answer = text.trim() ? await this.check(text) : {};
    if (text !== promptBox()?.value) return;
    this.answer = { unknown: [], corrections: {}, ...answer };
    this.show();
  }

  // Of the last answer, what is still in the prompt.
  show() {
    const text = promptBox()?.value ?? "";
    this.showUnknown(this.answer.unknown.filter((word) => asTyped(word).test(text)));
    this.showCorrections(Object.entries(this.answer.corrections).filter(([word]) => asTyped(word).test(text)));
    const parts = text.split(",").map(normalized);
    for (const chip of document.querySelectorAll("#words [data-add]")) {
      chip.setAttribute("aria-pressed", String(parts.includes(normalized(chip.dataset.add))));
    }
  }

  showUnknown(words) {
    const marks = words.slice(0, MAX_LISTED).flatMap((word) => [" ", make("mark", { textContent: word })]);
    const more = words.length > MAX_LISTED ? ` and ${words.length - MAX_LISTED} more` : "";
    replaceLine("unknown", words, () => ["Not known to this model, will be ignored:", ...marks, more]);
  }

  showCorrections(corrections) {
    replaceLine("corrections", corrections, () => ["Read as:", ...corrections.map(([word, correction]) => {
      const chip = make("button", { type: "button", className: "ib-chip", textContent: `${word} → ${correction}` });
      chip.addEventListener("click", () => {
        this.change(promptBox().value.replace(asTyped(word), correction));
        promptBox().focus();
      });
      return chip;
    })]);
  }

  // Words are added to the prompt, or taken out of it.
  toggleWords(words) {
    const parts = (promptBox()?.value ?? "").split(",").map((part) => part.trim()).filter(Boolean);
    const others = parts.filter((part) => normalized(part) !== normalized(words));
    if (others.length === parts.length) others.push(words);
    this.change(others.join(", "));
  }
}

// A line about `items`, hidden without any; it is left alone where it says the same already.
const replaceLine = (id, items, content) => {
  const line = document.getElementById(id);
  const key = JSON.stringify(items);
  if (!line || line.dataset.shown === key) return;
  line.dataset.shown = key;
  line.hidden = !items.length;
  line.replaceChildren(...content());
};

// Of the words that the model knows, those that hold what is looked for, and their groups.
const findWords = (text) => {
  for (const chip of document.querySelectorAll("#words [data-add]")) chip.hidden = !normalized(chip.dataset.add).includes(normalized(text));
  for (const group of document.querySelectorAll("#words [role=group]")) group.hidden = !group.querySelector("button:not([hidden])");
};
