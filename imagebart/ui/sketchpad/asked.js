// The run that was asked for last. Its name goes with its start and with Cancel, so that the server stops this very run,
// whichever of the two it hears of first. What became of it only the run itself says.

const AGAIN = 1000; // milliseconds until the server is told again: it may not have heard of Cancel, or only now of the run

export class Asked {
  // stop: tells the server to stop the run of a name. about: where the page finds how far it is and its name.
  constructor(stop, about = document.documentElement.dataset) {
    Object.assign(this, { stop, about });
  }

  // "": none goes on; "asked"; "cancelling"; "told": what became of it is known, but not yet to Gradio.
  get state() {
    return this.about.run ?? "";
  }

  // A run begins, with a name that nobody can guess.
  begin() {
    const name = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    Object.assign(this.about, { name, run: "asked" });
  }

  async cancel() {
    if (this.state !== "asked") return;
    this.about.run = "cancelling";
    const { name } = this.about;
    while (this.state === "cancelling" && this.about.name === name) {
      await this.stop(name).catch(() => null);
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }

  // The run of this name has a result, or none.
  told(name) {
    if (this.state && this.about.name === name) this.about.run = "told";
  }
}
