// Toolbars, each one stop for the Tab key, as in the ARIA Authoring Practices: arrows left and right, Home and End go from
// one of its controls to another. Of a slider, arrows up and down move the knob.
const ITEMS = "button, a[href], input:not([type=file], [data-alone])";
const ENDS = ["Home", "End"]; // which a slider has for itself

export const rove = (bar) => {
  const items = () => [...bar.querySelectorAll(ITEMS)];
  const stopAt = (chosen) => items().forEach((item) => (item.tabIndex = item === chosen ? 0 : -1));
  // Who comes back comes to the first: the one that was left may be disabled by then.
  const rest = () => stopAt(items().find((item) => !item.disabled));

  bar.addEventListener("keydown", (event) => {
    const all = items().filter((item) => !item.disabled && item.offsetParent);
    const at = all.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined || (event.target.type === "range" && ENDS.includes(event.key))) return;
    event.preventDefault();
    all[(to + all.length) % all.length].focus();
  });
  bar.addEventListener("focusin", ({ target }) => target.matches(ITEMS) && stopAt(target));
  bar.addEventListener("focusout", ({ relatedTarget }) => bar.contains(relatedTarget) || rest());
  // Examples and variants come and go.
  new MutationObserver(() => bar.contains(document.activeElement) || rest()).observe(bar, { childList: true, subtree: true });
  rest();
};
