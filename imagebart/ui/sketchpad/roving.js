// Groups of buttons that are one stop for the Tab key: arrows go from one to the next.

export const rove = (group) => {
  const buttons = () => [...group.querySelectorAll("button")].filter((button) => !button.disabled && button.offsetParent);
  const stopAt = (chosen) => {
    for (const button of group.querySelectorAll("button")) button.tabIndex = button === chosen ? 0 : -1;
  };
  const rest = () => stopAt(group.querySelector("button:not(:disabled)"));

  group.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    all[(to + all.length) % all.length].focus();
  });
  group.addEventListener("focusin", ({ target }) => target.matches("button") && stopAt(target));
  // A button that was left may be disabled when somebody comes back.
  group.addEventListener("focusout", ({ relatedTarget }) => group.contains(relatedTarget) || rest());
  rest();
};
