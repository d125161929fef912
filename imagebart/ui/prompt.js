// The prompt: words that the model does not know are named as they are typed, and suggestions are added by one click.
// What the model knows stands in #lexicon, as data; which words it takes for others the server says, a moment later.
(() => {
  // Letters, digits and marks make words, and symbols such as emoji; a 's or 't belongs to the word before it.
  const WORD = /(\p{So}[\p{So}\p{M}]*|[\p{L}\p{N}\p{M}]+)(?:['’](?:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}]))?/giu;
  const MOST = 10; // unknown words named at a time
  const QUIET = 150; // milliseconds without a change before the server is asked

  const box = () => document.querySelector("#prompt textarea, #prompt input");
  const lexicon = () => document.querySelector("#lexicon [data-words]");
  const model = () => document.querySelector("#model b")?.textContent ?? "";
  const flat = (text) => text.trim().toLowerCase();

  let read = null; // the element that `known` was read from
  let known = new Set();
  const taken = new Set(); // words that are taken for others, in lower case
  const words = () => {
    const found = lexicon();
    if (found !== read) {
      read = found;
      taken.clear();
      known = new Set(found ? JSON.parse(found.dataset.words) : []);
    }
    return known;
  };

  const unknown = (text) => {
    const found = new Map();
    for (const [written, word] of text.normalize("NFC").matchAll(WORD)) {
      if (!words().has(word.toLowerCase()) && !found.has(written.toLowerCase())) found.set(written.toLowerCase(), written);
    }
    return [...found.values()];
  };

  // What the server said last: { words, model, unknown, meant }.
  let said = { meant: {} };
  let asking = 0;
  const named = (text) => {
    if (!words().size) return [];
    if (said.words === text && said.model === model()) return said.unknown;
    const found = unknown(text);
    clearTimeout(asking);
    const asked = { words: text, model: model() };
    if (found.length) asking = setTimeout(() => dispatchEvent(new CustomEvent("imagebart-typed", { detail: asked })), QUIET);
    return found.filter((word) => !taken.has(word.toLowerCase()));
  };

  const parts = (text) => text.split(",").map(flat).filter(Boolean);

  // A misspelt word as it was typed, by itself.
  const typed = (word) => new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "giu");

  // Words that are taken for others, each with the right one to put there by a click.
  const offer = (text) => {
    const place = document.getElementById("meant");
    if (!place) return;
    const found = Object.entries(said.model === model() ? said.meant : {}).filter(([word]) => typed(word).test(text));
    place.hidden = !found.length;
    const shown = JSON.stringify(found);
    if (place.dataset.shown === shown) return;
    place.dataset.shown = shown;
    place.replaceChildren("Read as:", ...found.map(([word, meant]) => {
      const chip = Object.assign(document.createElement("button"), { type: "button", className: "ib-chip" });
      chip.textContent = `${word} → ${meant}`;
      chip.addEventListener("click", () => {
        write(box().value.replace(typed(word), meant));
        box().focus();
      });
      return chip;
    }));
  };

  const refresh = () => {
    const text = box()?.value ?? "";
    const line = document.getElementById("unknown");
    if (line) {
      const strange = named(text);
      line.replaceChildren();
      if (strange.length) {
        const marks = strange.slice(0, MOST).map((word) => Object.assign(document.createElement("mark"), { textContent: word }));
        const more = strange.length > MOST ? ` and ${strange.length - MOST} more` : "";
        line.append("Not known to this model, will be ignored: ", ...marks.flatMap((mark, i) => i ? [" ", mark] : [mark]), more);
      }
      line.hidden = !strange.length;
    }
    offer(text);
    const there = parts(text);
    for (const chip of document.querySelectorAll("#suggestions [data-add]")) {
      chip.setAttribute("aria-pressed", String(there.includes(flat(chip.dataset.add))));
    }
  };

  const write = (text) => {
    const input = box();
    if (!input) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(input), "value").set.call(input, text);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    refresh();
  };

  const toggle = (chip) => {
    const text = box()?.value ?? "", added = flat(chip.dataset.add);
    const kept = text.split(",").filter((part) => flat(part) && flat(part) !== added);
    if (kept.length === text.split(",").filter(flat).length) kept.push(chip.dataset.add);
    write(kept.map((part) => part.trim()).join(", "));
  };

  const unfold = (tab) => {
    const open = tab.getAttribute("aria-expanded") === "true";
    for (const other of document.querySelectorAll("#suggestions [aria-controls]")) {
      const shown = other === tab && !open;
      other.setAttribute("aria-expanded", String(shown));
      const group = document.getElementById(other.getAttribute("aria-controls"));
      if (group) group.hidden = !shown;
    }
  };

  document.addEventListener("click", (event) => {
    const chip = event.target.closest?.("#suggestions [data-add]");
    const tab = event.target.closest?.("#suggestions [aria-controls]");
    if (chip) toggle(chip);
    if (tab) unfold(tab);
  });
  addEventListener("imagebart-read", ({ detail }) => {
    if (detail.model !== model()) return;
    said = detail;
    const strange = new Set(detail.unknown.map((word) => word.toLowerCase()));
    for (const word of unknown(detail.words)) if (!strange.has(word.toLowerCase())) taken.add(word.toLowerCase());
    refresh();
  });
  document.addEventListener("input", (event) => {
    if (event.target === box()) refresh();
  });
  // The page itself changes the prompt too (an example, a restored picture), which fires no event.
  let seen = null;
  setInterval(() => {
    const now = `${box()?.value} ${lexicon()?.dataset.words.length} ${document.querySelectorAll("#suggestions [data-add]").length}`;
    if (now !== seen) refresh();
    seen = now;
  }, 250);
})();
