// Live regions, tooltips and a label that Gradio has no option for.
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
    for (const [id, title] of Object.entries(TITLES)) set(document.getElementById(id), "title", title);
    for (const id of ["announcement", "messages"]) {
      set(document.getElementById(id), "role", "status");
      set(document.getElementById(id), "aria-live", "polite");
    }
    // Until the run reports; see RunState in sketchpad/run.js.
    const text = document.documentElement.dataset.runState === "cancelling" ? "Stopping" : "Cancel";
    const nodes = [...(document.getElementById("cancel")?.childNodes ?? [])];
    const label = nodes.find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (label && label.data.trim() !== text) label.data = text;
  };

  new MutationObserver(describe).observe(document, { childList: true, subtree: true, attributeFilter: ["data-run-state"] });
})();
