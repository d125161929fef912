// The page around the sketchpad: its prompt, its buttons, and parts that Gradio may put there later.

export const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

// Write the prompt so that Gradio and the list of unknown words hear of it.
export const write = (text) => {
  const box = promptBox();
  if (!box) return;
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, text);
  box.dispatchEvent(new Event("input", { bubbles: true }));
};

export const press = (id) => document.getElementById(id)?.click();

// Act once a button can be pressed.
export const whenFree = (id, act) => {
  if (document.getElementById(id)?.disabled) requestAnimationFrame(() => whenFree(id, act));
  else act();
};

// Parts of the page that Gradio may put there later than the sketchpad.
export const whenThere = (id, act) => {
  const place = document.getElementById(id);
  if (place) act(place);
  else requestAnimationFrame(() => whenThere(id, act));
};

// What the page said was of another picture. What it says next is seen again.
export const hush = () => {
  const place = document.getElementById("messages");
  if (!place) return;
  place.dataset.old = "";
  const said = new MutationObserver(() => {
    delete place.dataset.old;
    said.disconnect();
  });
  said.observe(place, { childList: true, subtree: true, characterData: true });
};
