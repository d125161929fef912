// Files dropped on the canvas or pasted anywhere go through the upload button, so that the server gets the file itself
// and not the browser's drawing of it. Live regions and labels that Gradio has no option for are added here.
(() => {
  const firstFile = (transfer) => transfer?.files?.[0];

  const send = (file) => {
    const input = document.querySelector("#upload")?.previousElementSibling;
    if (!(input instanceof HTMLInputElement)) return;
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.target.closest?.("#canvas") || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      const file = firstFile(event.dataTransfer);
      if (kind === "drop" && file) send(file);
    }, true);
  }

  document.addEventListener("paste", (event) => {
    const file = firstFile(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    send(file);
  }, true);

  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  const describe = () => {
    for (const id of ["announcement", "messages"]) {
      set(document.getElementById(id), "role", "status");
      set(document.getElementById(id), "aria-live", "polite");
    }
    for (const [group, label] of [["ready", "ready-label"], ["mask-tools", "mask-tools-label"]]) {
      set(document.getElementById(group), "role", "group");
      set(document.getElementById(group), "aria-labelledby", label);
    }
    // Gradio names a place without a picture, but not what it is.
    for (const empty of document.querySelectorAll(".empty[aria-label]")) set(empty, "role", "img");
    set(document.querySelector("#preview button:has(> .image-frame)"), "aria-label", "Result");
    set(document.querySelector("#canvas .image-container"), "aria-label",
      "The picture to paint on. Ready masks and a mask upload, below, do the same without a pointer.");
    for (const button of document.querySelectorAll("#examples .thumbnail-item, .ib-strip .thumbnail-item")) {
      set(button, "aria-label", button.querySelector("img")?.alt || "picture");
    }
    for (const id of ["upload", "upload-mask"]) {
      const input = document.getElementById(id)?.previousElementSibling;
      if (input instanceof HTMLInputElement) set(input, "accept", "image/*");
    }
  };
  // Which button a run was begun or ended by: see WHY in page.py.
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#edit, #generate, #vary, #cancel");
    if (button) document.documentElement.dataset.run = button.id === "cancel" ? "cancelled" : "asked";
  }, true);

  // A page that is loaded again asks for what was made on it: see CANVAS_READY in page.py. Each tab has its own storage.
  addEventListener("pagehide", () => {
    const visit = document.querySelector("#visit [data-session]")?.dataset.session;
    const words = document.querySelector("#prompt textarea, #prompt input")?.value ?? null;
    if (visit) sessionStorage.setItem("imagebart", JSON.stringify({ visit, words }));
  });

  // On a narrow screen the result is far below the button that asks for it.
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#edit, #generate, #vary") || !matchMedia("(max-width: 799px)").matches) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.getElementById("actions")?.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  });

  new MutationObserver(describe).observe(document, { childList: true, subtree: true });
})();
