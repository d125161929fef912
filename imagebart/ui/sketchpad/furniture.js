// What the sketchpad's markup leaves open: the ready masks, the list of keys, the examples.
import { hush } from "./around.js";
import { HELP } from "./keys.js";
import { READY, ready } from "./masks.js";
import { thumbnail } from "./review.js";

export const furnish = (pad) => {
  const { ready: place, help } = pad.parts;
  for (const name of READY) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "sp-button" });
    button.textContent = name[0].toUpperCase() + name.slice(1);
    button.addEventListener("click", () => pad.paint((mask) => ready(name, mask)));
    place.append(button);
  }
  const rows = HELP.map(([keys, does]) => `<dt>${keys}</dt><dd>${does}</dd>`).join("");
  help.innerHTML = `<h3>Keys</h3><dl>${rows}</dl>`;
  layExamples(pad);
  pad.size(0);
};

export const layExamples = (pad) => {
  const strip = pad.element.querySelector(".sp-examples");
  const take = (example) => {
    hush();
    pad.example(example);
  };
  strip.replaceChildren(...pad.examples.map((example) => thumbnail(example.small, example.caption, () => take(example))));
};
