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

  // See WHY in page.py. Gradio cancels a run by its name, which the server's answer to its start tells: Cancel waits for
  // it. And each run is cancelled once at most, before its end: Gradio would take the next one for it.
  const about = document.documentElement.dataset;
  let asking = false; // a run that has not been sent yet
  let nameless = false; // a run that has not been answered yet
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#edit, #generate, #vary, #cancel");
    if (!button) return;
    if (button.id !== "cancel") {
      about.run = "asked";
      asking = nameless = true;
      return;
    }
    if (nameless || about.run !== "asked") event.stopPropagation();
    if (about.run === "asked") about.run = "cancelled";
  }, true);

  const named = () => {
    nameless = false;
    if (about.run !== "cancelled") return;
    about.run = "asked";
    document.getElementById("cancel").click();
  };

  const fetched = window.fetch;
  window.fetch = async (address, ...options) => {
    if (!asking || !String(address.url ?? address).includes("/queue/join")) return fetched(address, ...options);
    asking = false;
    try {
      const response = await fetched(address, ...options);
      const told = response.json();
      response.json = () => told;
      await told;
      return response;
    } finally {
      setTimeout(named); // after Gradio, too, has read it
    }
  };

  // A run that came to its end was not cancelled, though somebody may have tried.
  addEventListener("imagebart-run", ({ detail }) => {
    if (detail.results || detail.over || detail.gone) document.documentElement.dataset.run = "over";
  });

  new MutationObserver(describe).observe(document, { childList: true, subtree: true });
})();
