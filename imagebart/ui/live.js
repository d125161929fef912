// Live regions, tooltips, names and states that Gradio has no option for.
(() => {
  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  const TITLES = {
    edit: "Regenerate what is painted over, as your words say (Enter)",
    generate: "Generate a new image from your words",
    vary: "Regenerate the whole image, a little differently; Settings say how much",
    cancel: "Cancel the run (Esc)",
  };

  const describe = () => {
    // See RunState in sketchpad/run.js, which decides what a click does. A button that is really disabled loses the focus.
    const state = document.documentElement.dataset.runState ?? "";
    for (const [id, title] of Object.entries(TITLES)) {
      const button = document.getElementById(id);
      const idle = id === "cancel" ? !["requested", "cancelling"].includes(state) : state === "requested";
      set(button, "title", title);
      set(button, "aria-disabled", String(idle));
    }
    for (const id of ["announcement", "messages"]) {
      set(document.getElementById(id), "role", "status");
      set(document.getElementById(id), "aria-live", "polite");
    }
    // Of one name, radio buttons are one stop of the Tab key; Gradio gives each one of its own, again at each change.
    for (const radio of document.querySelectorAll("#how-many input[type=radio]")) set(radio, "name", "how-many");
    // Until the run reports.
    const text = state === "cancelling" ? "Stopping" : "Cancel";
    const nodes = [...(document.getElementById("cancel")?.childNodes ?? [])];
    const label = nodes.find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (label && label.data.trim() !== text) label.data = text;
  };

  new MutationObserver(describe).observe(document, { childList: true, subtree: true, attributeFilter: ["data-run-state", "name"] });
})();
