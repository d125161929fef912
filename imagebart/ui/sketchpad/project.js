// A project in one file: everything that is on the page, saved and opened again, see ui/project.py.
import { fileUrl, NO_ANSWER, whenPresent } from "./gradio.js";
import { pack } from "./mask.js";

const REPLACE = "The runs in this page's history give way to those of the project. Open it?";

export const isProject = (file) => /\.imagebart$/i.test(file.name);

export class Projects {
  constructor(pad, input) {
    this.pad = pad;
    imagebart.on("save_project", (controls) => this.save(controls));
    document.addEventListener("click", ({ target }) => target.closest?.("#open-project") && input.click());
    input.addEventListener("change", () => {
      if (input.files[0]) this.open(input.files[0]);
      input.value = "";
    });
  }

  // controls: the values of the page's controls, by name.
  async save(controls) {
    const { state, review, history, loader, server } = this.pad;
    state.finishStroke();
    if (state.image && !(await loader.ensureOnServer(state.image))) return this.pad.say("The server no longer has this image; upload it again.");
    this.pad.say("Saving the project …");
    const { entries } = history;
    const shown = review.finished ? entries.findIndex(({ results }) => results[0].path === review.run.results[0].path) : null;
    const mask = state.mask ? pack(state.mask) : "";
    const page = { image: state.image, mask, controls: { ...controls, movable: state.movable }, history: entries, shown };
    const { path, left_out: leftOut, error } = await server.save_project(page).catch(() => NO_ANSWER);
    if (error) return this.pad.say(error);
    const day = new Date().toISOString().slice(0, 10);
    Object.assign(document.createElement("a"), { href: fileUrl(path), download: `${day}.imagebart` }).click();
    const runs = leftOut === 1 ? "1 run is" : `${leftOut} runs are`;
    return this.pad.say(leftOut ? `The project is saved; ${runs} not in it: their images are gone, or it would be over 40 MB.` : "The project is saved.");
  }

  // Nothing changes before the server has read all of it.
  async open(file) {
    const { state, history, loader, server, upload } = this.pad;
    if (file.size > loader.maxBytes) return this.pad.say("This project is larger than 40 MB.");
    this.pad.say("Opening the project …");
    const answer = await this.send(file);
    if (!answer.project) return this.pad.say(answer.error);
    const { image, mask, controls, history: entries, shown } = answer.project;
    if (history.entries.length && !window.confirm(REPLACE)) return this.pad.say("");
    await new Promise((act) => state.onArrival(act));
    await this.chooseModel(answer.model);
    if (image) loader.open(image, mask, typeof controls.words === "string" ? controls.words : null, controls.movable === true);
    history.replace(entries);
    whenPresent("channel-open_link", () => imagebart.send("open_link", { ...controls, project: true }));
    if (shown !== null) this.pad.finish(entries[shown]);
    return this.pad.say("");
  }

  async send(file) {
    try {
      const { path } = await this.pad.upload(file);
      return await this.pad.server.open_project(path);
    } catch {
      return NO_ANSWER;
    }
  }

  // The project's model, if the page has it; its settings come before those of the project.
  chooseModel(name) {
    const used = document.querySelector("#model b")?.textContent;
    if (!name || name === used) return null;
    const switched = new Promise((done) => imagebart.on("examples", done));
    imagebart.send("choose_model", name);
    return switched;
  }
}
