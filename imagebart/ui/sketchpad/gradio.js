// The page that Gradio builds around the sketchpad: its buttons and messages, and the files on its server.

const NO_ANSWER = { error: "The server did not answer. Please try again in a moment." };

const serverUrl = (route) => `${window.gradio_config.root.replace(/\/$/, "")}${window.gradio_config.api_prefix}/${route}`;

// The server's functions by name, which answer { error } where the server does not. renew: called where it is not the one that
// the page came from. After an update, it knows the page's parts by other numbers.
export const answering = (server, renew) => new Proxy(server, {
  get: (functions, name) => async (value) => (await functions[name](value).catch(() => null)) ?? (checkServer(renew), NO_ANSWER),
});

const checkServer = async (renew) => {
  const answer = await fetch(serverUrl("app_id")).catch(() => null);
  if (answer?.ok && (await answer.json()).app_id !== window.gradio_config.app_id) renew();
};

const TITLES = {
  edit: "Change what is outlined, as your words say (Enter)",
  generate: "A new image from your words alone",
  cancel: "Cancel the run (Esc)",
};

const MAIN_BUTTONS = ["cancel", "keep", "edit", "discard"];

export const click = (id) => document.getElementById(id)?.click();

// Act once an element is there: Gradio may add it later than the sketchpad.
export const whenPresent = (id, act) => {
  const element = document.getElementById(id);
  if (element) act(element);
  else requestAnimationFrame(() => whenPresent(id, act));
};

// The address of a file on the server.
export const fileUrl = (path) => serverUrl(`file=${path.split("/").map(encodeURIComponent).join("/")}`);

// Hide the page's messages, which are about what was there before, until there are new ones; and how the last run ended.
export const hideMessages = (...parts) => {
  for (const part of ["messages", ...parts].map((id) => document.getElementById(id))) {
    if (!part || "outdated" in part.dataset) continue;
    part.dataset.outdated = "";
    const observer = new MutationObserver(() => {
      delete part.dataset.outdated;
      observer.disconnect();
    });
    observer.observe(part, { childList: true, subtree: true, characterData: true });
  }
};

// Live regions, tooltips, names and states, for which Gradio has no option. label: of the main button; hint: what comes next.
export const describePage = (now) => {
  const describe = () => {
    const { label, hint } = now();
    // See RunState in run.js, which decides what a click does. A button that is really disabled loses the focus.
    const state = document.documentElement.dataset.runState ?? "";
    for (const [id, title] of Object.entries(TITLES)) {
      const idle = id === "cancel" ? !["requested", "cancelling"].includes(state) : state === "requested";
      setAttributes(document.getElementById(id), { title, "aria-disabled": String(idle) });
    }
    for (const id of ["announcement", "messages"]) {
      setAttributes(document.getElementById(id), { role: "status", "aria-live": "polite" });
    }
    // Of one name, radio buttons are one stop of the Tab key; Gradio gives each one of its own, again at each change.
    for (const radio of document.querySelectorAll("#how-many input[type=radio]")) setAttributes(radio, { name: "how-many" });
    for (const [id, text] of [["edit", label], ["cancel", state === "cancelling" ? "Stopping" : "Cancel"]]) {
      const nodes = [...(document.getElementById(id)?.childNodes ?? [])];
      const shown = nodes.find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      if (shown && shown.data.trim() !== text) shown.data = text;
    }
    setAttributes(document.getElementById("progress"), { "data-hint": hint });
    // The focus stays at the main button, whichever that is now.
    if (MAIN_BUTTONS.includes(document.activeElement?.id) && !document.activeElement.offsetParent) {
      MAIN_BUTTONS.map((id) => document.getElementById(id)).find((button) => button?.offsetParent)?.focus({ preventScroll: true });
    }
  };
  const attributeFilter = ["data-run-state", "data-review", "data-mode", "name"];
  new MutationObserver(describe).observe(document, { childList: true, subtree: true, attributeFilter });
  describe();
};

const setAttributes = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
};
