// The prompt: words that the model does not know are listed as they are typed, and suggestions are added by one click.
// The model's vocabulary is in #lexicon, as data; which unknown words it corrects the server answers a moment later.
(() => {
  // Letters, digits and marks make words, and symbols such as emoji; a 's or 't belongs to the word before it.
  const WORD = /(\p{So}[\p{So}\p{M}]*|[\p{L}\p{N}\p{M}]+)(?:['’](?:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}]))?/giu;
  const MAX_LISTED = 10; // unknown words
  const DELAY = 150; // milliseconds without a change before the server is asked

  const promptBox = () => document.querySelector("#prompt textarea, #prompt input");
  const model = () => document.querySelector("#model b")?.textContent ?? "";
  const normalized = (text) => text.trim().toLowerCase();

  let lexicon = null; // the element that `vocabulary` was read from
  let vocabulary = new Set();
  const corrected = new Set(); // unknown words for which the model has a correction, in lower case
  const readLexicon = () => {
    const element = document.querySelector("#lexicon [data-words]");
    if (element === lexicon) return;
    lexicon = element;
    corrected.clear();
    vocabulary = new Set(element ? JSON.parse(element.dataset.words) : []);
  };

  const outOfVocabulary = (text) => {
    readLexicon();
    const found = new Map();
    for (const [written, word] of text.normalize("NFC").matchAll(WORD)) {
      const key = written.toLowerCase();
      if (!vocabulary.has(word.toLowerCase()) && !found.has(key)) found.set(key, written);
    }
    return [...found.values()];
  };

  // The server's last answer: { prompt, model, unknown, corrections }.
  let answer = { corrections: {} };
  let timer = 0;
  const unknownWords = (text) => {
    readLexicon();
    if (!vocabulary.size) return [];
    if (answer.prompt === text && answer.model === model()) return answer.unknown;
    const found = outOfVocabulary(text);
    clearTimeout(timer);
    const question = { prompt: text, model: model() };
    if (found.length) timer = setTimeout(() => imagebart.send("check_prompt", question), DELAY);
    return found.filter((word) => !corrected.has(word.toLowerCase()));
  };

  // A misspelt word as it was typed, by itself.
  const asTyped = (word) => new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "giu");

  // The corrections, each to be put into the prompt by a click.
  const showCorrections = (text) => {
    const element = document.getElementById("corrections");
    if (!element) return;
    const corrections = answer.model === model() ? answer.corrections : {};
    const found = Object.entries(corrections).filter(([word]) => asTyped(word).test(text));
    element.hidden = !found.length;
    const shown = JSON.stringify(found);
    if (element.dataset.shown === shown) return;
    element.dataset.shown = shown;
    element.replaceChildren("Read as:", ...found.map(([word, correction]) => {
      const chip = Object.assign(document.createElement("button"), { type: "button", className: "ib-chip" });
      chip.textContent = `${word} → ${correction}`;
      chip.addEventListener("click", () => {
        imagebart.send("change_words", promptBox().value.replace(asTyped(word), correction));
        promptBox().focus();
      });
      return chip;
    }));
  };

  const showUnknownWords = (text) => {
    const line = document.getElementById("unknown");
    if (!line) return;
    const unknown = unknownWords(text);
    line.replaceChildren();
    line.hidden = !unknown.length;
    if (!unknown.length) return;
    const marks = unknown.slice(0, MAX_LISTED).map((word) => Object.assign(document.createElement("mark"), { textContent: word }));
    const more = unknown.length > MAX_LISTED ? ` and ${unknown.length - MAX_LISTED} more` : "";
    line.append("Not known to this model, will be ignored: ", ...marks.flatMap((mark, i) => i ? [" ", mark] : [mark]), more);
  };

  const refresh = () => {
    const text = promptBox()?.value ?? "";
    showUnknownWords(text);
    showCorrections(text);
    const parts = text.split(",").map(normalized);
    for (const chip of document.querySelectorAll("#suggestions [data-add]")) {
      chip.setAttribute("aria-pressed", String(parts.includes(normalized(chip.dataset.add))));
    }
  };

  imagebart.on("write_prompt", (text) => {
    const box = promptBox();
    if (!box) return;
    if (box.value !== text) {
      Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, text);
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    refresh();
  });

  // A suggestion is added to the prompt, or taken out of it.
  const toggleSuggestion = (chip) => {
    const parts = (promptBox()?.value ?? "").split(",").map((part) => part.trim()).filter(Boolean);
    const others = parts.filter((part) => normalized(part) !== normalized(chip.dataset.add));
    if (others.length === parts.length) others.push(chip.dataset.add);
    imagebart.send("change_words", others.join(", "));
  };

  const toggleGroup = (tab) => {
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
    if (chip) toggleSuggestion(chip);
    if (tab) toggleGroup(tab);
  });
  imagebart.on("prompt_check", (message) => {
    if (message.model !== model()) return;
    answer = message;
    const unknown = new Set(message.unknown.map((word) => word.toLowerCase()));
    for (const word of outOfVocabulary(message.prompt).map((word) => word.toLowerCase())) {
      if (!unknown.has(word)) corrected.add(word);
    }
    refresh();
  });
  document.addEventListener("input", (event) => {
    if (event.target !== promptBox()) return;
    refresh();
    imagebart.send("words_changed", true);
  });
  // Gradio changes the prompt, too (an example, a restored image), which fires no event.
  let seen = null;
  setInterval(() => {
    const words = document.querySelector("#lexicon [data-words]")?.dataset.words.length;
    const now = `${promptBox()?.value} ${words} ${document.querySelectorAll("#suggestions [data-add]").length}`;
    if (now !== seen) {
      refresh();
      imagebart.send("words_changed", true);
    }
    seen = now;
  }, 250);
})();
