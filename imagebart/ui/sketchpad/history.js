// Finished runs as thumbnails with what was asked and when; each can be gone back to, with its picture and mask.
import { thumbnail } from "./review.js";
import { recall, remember } from "./store.js";

const MOST = 12;
const NAMES = { edit: "Edit", generate: "New picture", vary: "Variation" };

export class History {
  // place: the element to show them in; back: called with an entry that is chosen.
  constructor(place, back) {
    Object.assign(this, { place, back, entries: recall("history") ?? [] });
    this.show();
  }

  // entry: { task, prompt, when, before, mask, results, steps, name }
  add(entry) {
    this.entries = [...this.entries, entry].slice(-MOST);
    remember("history", this.entries);
    this.show();
  }

  show() {
    this.place.hidden = !this.entries.length;
    const items = [...this.entries].reverse().map((entry) => {
      const time = new Date(entry.when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      const asked = entry.prompt || NAMES[entry.task];
      const button = thumbnail(entry.results[0].small, `${NAMES[entry.task]}: ${entry.prompt || "no words"}, ${time}`, () =>
        this.back(entry));
      button.append(Object.assign(document.createElement("span"), { textContent: asked }));
      button.append(Object.assign(document.createElement("time"), { textContent: time }));
      return button;
    });
    this.place.querySelector(".sp-strip").replaceChildren(...items);
  }
}
