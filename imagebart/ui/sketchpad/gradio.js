// The page that Gradio builds around the sketchpad: its prompt, its buttons, and the files on its server.

// The sketchpad's requests, and the events of gr.HTML that carry them to Python with the sketchpad's value.
export const EVENTS = { fit: "input", settings: "upload", select: "select", describe: "copy", recognize: "tick" };

export const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

export const click = (id) => document.getElementById(id)?.click();

// Act once an element is there: Gradio may add it later than the sketchpad.
export const whenPresent = (id, act) => {
  const element = document.getElementById(id);
  if (element) act(element);
  else requestAnimationFrame(() => whenPresent(id, act));
};

// The prompt: null where there is none, or not yet. What is written before it is there, it gets when it comes.
let unwritten = null;
export const prompt = {
  read: () => (unwritten === null ? promptBox()?.value ?? null : null),
  write: (text) => {
    const first = unwritten === null;
    unwritten = text;
    if (!first) return;
    whenPresent("prompt", () => {
      const last = unwritten;
      unwritten = null;
      imagebart.send("write_prompt", last); // see prompt.js
    });
  },
};

// Hide the page's messages, which are about what was there before, until there are new ones.
export const hideMessages = () => {
  const messages = document.getElementById("messages");
  if (!messages || "outdated" in messages.dataset) return;
  messages.dataset.outdated = "";
  const observer = new MutationObserver(() => {
    delete messages.dataset.outdated;
    observer.disconnect();
  });
  observer.observe(messages, { childList: true, subtree: true, characterData: true });
};

// In the place of the answer of a call to the server that failed.
export const NO_ANSWER = { error: "The server did not answer. Please try again in a moment." };

// The address of a file on the server.
export const fileUrl = (path) => {
  const config = window.gradio_config ?? {};
  const root = (config.root ?? location.origin).replace(/\/$/, "");
  return `${root}${config.api_prefix ?? "/gradio_api"}/file=${path.split("/").map(encodeURIComponent).join("/")}`;
};
