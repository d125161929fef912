// The channel from Gradio's hidden parts to the sketchpad and back: messages, each with its name and a value.
//
// run: how far a run is, or its result; run_over: Gradio knows that it has ended; examples: those of another model; controls:
// all their values; random_prompt: that of "Surprise me"; open_link: the values of a link that was opened, or of before a
// reload; restore_settings: an image that was made here is opened.
const imagebart = {
  send: (name, value) => dispatchEvent(new CustomEvent("imagebart", { detail: { name, value } })),
  on: (name, receive) => addEventListener("imagebart", ({ detail }) => detail.name === name && receive(detail.value)),
};
