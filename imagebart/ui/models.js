// The list of models: what each draws, how long an edit takes, and one button: Use, or Get and Cancel. Started by Gradio
// when the list is first unfolded, with the element and the server's functions, see add_model_list in model_list.py.
const POLL = 1000; // milliseconds between two looks at a download
const RETRY = 5000; // until the next one, where the server did not answer
const NO_ANSWER = { error: "The server does not answer; downloads go on when it does." };

const list = element.querySelector("ul");
const note = element.querySelector(".ib-models-note");
const rows = new Map(); // by the model's name
let timer = 0;

const inUse = () => document.querySelector("#model b")?.textContent ?? "";
const say = (sentence) => {
  if (note.textContent !== sentence) note.textContent = sentence;
};
const set = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

// A row is made once and then changed in place, so that its button keeps the focus.
const addRow = (name) => {
  const row = document.createElement("li");
  row.innerHTML = `<div><b></b> <span class="ib-draws"></span><p class="ib-facts"></p><p class="ib-license"></p>
    <p class="ib-download"></p><span class="ib-track" role="progressbar" aria-valuemin="0" aria-valuemax="100"><span class="ib-fill"></span></span></div>
    <button type="button" class="sp-button"></button>`;
  set(row.querySelector("b"), name);
  row.querySelector(".ib-track").setAttribute("aria-label", `Getting ${name}`);
  row.querySelector("button").addEventListener("click", () => press(name));
  list.append(row);
  rows.set(name, { row });
  return rows.get(name);
};

const actionOf = ({ name, here, running }) => {
  if (running) return "Cancel";
  if (!here) return "Get";
  return name === inUse() ? "In use" : "Use";
};

const show = (models) => {
  for (const name of rows.keys()) {
    if (models.some((model) => model.name === name)) continue;
    rows.get(name).row.remove();
    rows.delete(name);
  }
  models.forEach((model, i) => {
    const entry = rows.get(model.name) ?? addRow(model.name);
    const { row, model: before } = entry;
    const part = (name) => row.querySelector(name);
    const action = actionOf(model);
    entry.model = model;
    set(part(".ib-draws"), model.draws);
    set(part(".ib-facts"), model.facts);
    set(part(".ib-license"), `License: ${model.license}`);
    set(part(".ib-download"), model.line);
    part(".ib-download").classList.toggle("ib-problem", model.failed);
    const bar = part(".ib-track");
    bar.hidden = !model.running;
    if (model.fraction === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", String(Math.round(100 * model.fraction)));
    part(".ib-fill").style.width = `${100 * (model.fraction ?? 0)}%`;
    const button = part("button");
    set(button, action);
    button.setAttribute("aria-label", action === "In use" ? `${model.name} is in use` : `${action} ${model.name}`);
    button.setAttribute("aria-disabled", String(action === "In use"));
    row.dataset.action = action;
    if (list.children[i] !== row) list.insertBefore(row, list.children[i]); // a row that is moved loses the focus
    if (before?.running && !model.running) say(`${model.name}: ${model.line}`);
  });
};

// Ask the server, show what it answers, and look again as long as something is downloaded.
const ask = async (request) => {
  clearTimeout(timer);
  const answer = (await server.model_list(request).catch(() => null)) ?? NO_ANSWER;
  if (answer.models) show(answer.models);
  if (answer.error) say(answer.error);
  clearTimeout(timer);
  if (!answer.models) timer = setTimeout(() => ask({}), RETRY);
  else if (answer.models.some(({ running }) => running)) timer = setTimeout(() => ask({}), POLL);
};

const press = (name) => {
  const { action } = rows.get(name).row.dataset;
  say("");
  if (action === "Get") ask({ get: name });
  if (action === "Cancel") ask({ cancel: name });
  if (action !== "Use") return;
  say(`Loading ${name} …`);
  imagebart.send("choose_model", name);
};

// Another model is chosen, and loaded.
imagebart.on("examples", () => requestAnimationFrame(() => {
  if (note.textContent.startsWith("Loading")) say("");
  show([...rows.values()].map(({ model }) => model));
}));
ask({});
