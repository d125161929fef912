// Live regions and labels that Gradio has no option for, and what began or ended a run.
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
  };

  // See WHY in page.py.
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#edit, #generate, #vary, #cancel");
    if (button) document.documentElement.dataset.run = button.id === "cancel" ? "cancelled" : "asked";
  }, true);

  // A run that came to its end was not cancelled, though somebody may have tried.
  addEventListener("imagebart-run", ({ detail }) => {
    if (detail.results || detail.over || detail.gone) document.documentElement.dataset.run = "over";
  });

  new MutationObserver(describe).observe(document, { childList: true, subtree: true });
})();
