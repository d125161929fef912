// What a key does: the name of an action, or null. `key` and the modifiers are those of a KeyboardEvent.

const PLAIN = new Map(Object.entries({
  b: "brush", e: "eraser", r: "rectangle", l: "lasso", "[": "smaller", "]": "larger", "+": "closer", "=": "closer",
  "-": "farther", 0: "whole", i: "invert", c: "compare", "?": "help", Escape: "cancel",
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
}));

// The list that `?` shows.
export const HELP = [
  ["Enter", "in the prompt: edit"],
  ["Tab, then ← →", "to a row of buttons, along it"],
  ["B E R L", "brush, eraser, rectangle, lasso"],
  ["[ ]", "smaller or larger brush"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["+ − 0", "closer, farther, the whole picture"],
  ["Arrows", "move the picture when it is enlarged"],
  ["I", "invert the mask"],
  ["C (held)", "the picture before"],
  ["Esc", "cancel the run"],
  ["?", "this list"],
];

export const actionOf = ({ key, ctrlKey, metaKey, altKey, shiftKey }, writing) => {
  if (ctrlKey || metaKey) {
    if (writing || altKey) return null;
    if (key.toLowerCase() === "z") return shiftKey ? "redo" : "undo";
    return key.toLowerCase() === "y" ? "redo" : null;
  }
  if (altKey) return null;
  if (writing) return key === "Escape" ? "cancel" : null;
  return PLAIN.get(key) ?? PLAIN.get(key.toLowerCase()) ?? null;
};
