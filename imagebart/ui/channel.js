// The one channel between the page and its scripts: messages, each with its name and a value.
//
// run: how far a run is, or its result; fit: what Edit will change, fit_again: that this is to be asked; answer: to "Select by prompt" and
// "Describe image"; examples: those of another model; share: the controls' values, for a link; open_link: those of the link
// that was opened; check_prompt: what is typed; prompt_check: which of its words the model does not know; random_prompt:
// that of "Surprise me"; change_words: a new prompt by a click; write_prompt: the same, or one that was there before, for the
// text field; words_changed: somebody types, or Gradio wrote; run_over: Gradio knows that the run has ended.
const imagebart = {
  send: (name, value) => dispatchEvent(new CustomEvent("imagebart", { detail: { name, value } })),
  on: (name, receive) => addEventListener("imagebart", ({ detail }) => detail.name === name && receive(detail.value)),
};
