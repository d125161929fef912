// Live regions and labels that Gradio has no option for.
(() => {
  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  const TITLES = {
    edit: "Draw again what is painted over, as your words say (Enter)",
    generate: "Draw a whole new picture from your words",
    vary: "Draw the whole picture again, a little differently; Settings say how much",
    cancel: "Stop the run (Esc)",
  };

  const describe = () => {
    for (const [id, title] of Object.entries(TITLES)) set(document.getElementById(id), "title", title);
    for (const id of ["announcement", "messages"]) {
      set(document.getElementById(id), "role", "status");
      set(document.getElementById(id), "aria-live", "polite");
    }
    // Until the run says what became of it; see sketchpad/asked.js.
    const said = document.documentElement.dataset.run === "cancelling" ? "Stopping" : "Cancel";
    const label = [...(document.getElementById("cancel")?.childNodes ?? [])].find((node) => node.nodeType === 3 && node.data.trim());
    if (label && label.data.trim() !== said) label.data = said;
  };

  new MutationObserver(describe).observe(document, { childList: true, subtree: true, attributeFilter: ["data-run"] });
})();
