// One edit by a pointer in Firefox, which is driven by WebDriver BiDi. Arguments: its program, and the page's address.
// Prints, as JSON, what is painted, packed, and the address of the result.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

const [program, url] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), "firefox-"));
const firefox = spawn(program, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"]);
const ended = once(firefox, "exit");
const address = await new Promise((found) => {
  let said = "";
  firefox.stderr.on("data", (data) => {
    said += data;
    const line = /WebDriver BiDi listening on (\S+)/.exec(said);
    if (line) found(line[1]);
  });
});
const socket = new WebSocket(`${address}/session`);
const answers = new Map();
socket.onmessage = ({ data }) => answers.get(JSON.parse(data).id)?.(JSON.parse(data));
await once(socket, "open");

const ask = async (method, params) => {
  const id = answers.size + 1;
  const answer = await new Promise((done) => {
    answers.set(id, done);
    socket.send(JSON.stringify({ id, method, params }));
  });
  if (answer.type === "error") throw new Error(`${method}: ${answer.message}`);
  return answer.result;
};

try {
  await ask("session.new", { capabilities: {} });
  const { context } = await ask("browsingContext.create", { type: "tab" });
  await ask("browsingContext.setViewport", { context, viewport: { width: 1280, height: 900 } });
  await ask("browsingContext.navigate", { context, url, wait: "complete" });

  const evaluate = async (expression) => {
    const params = { expression: `Promise.resolve(${expression}).then(JSON.stringify)`, target: { context }, awaitPromise: true };
    const { result, exceptionDetails } = await ask("script.evaluate", params);
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return JSON.parse(result.value ?? "null");
  };
  const waitFor = async (expression) => {
    while (!(await evaluate(expression))) await setTimeout(100);
  };
  // The pointer goes down at the first place and up at the last, each { x, y } on the screen.
  const drag = (first, ...places) => ask("input.performActions", { context, actions: [{
    type: "pointer", id: "mouse", actions: [
      { type: "pointerMove", ...first }, { type: "pointerDown", button: 0 },
      ...places.map((place) => ({ type: "pointerMove", duration: 50, ...place })), { type: "pointerUp", button: 0 },
    ],
  }] });
  const middle = (found) => evaluate(`((part) => {
    part.scrollIntoView({ block: "nearest" });
    const { x, y, width, height } = part.getBoundingClientRect();
    return { x: Math.round(x + width / 2), y: Math.round(y + height / 2) };
  })(${found})`);
  const button = (name) => `[...document.querySelectorAll("button")].find((one) => one.textContent.trim() === "${name}")`;

  const ready = `document.querySelector(".sp[data-shown]")?.dataset.fit === "known"`;
  await waitFor(ready);
  await drag(await middle(button("Clear mask")));
  const { x, y } = await middle(`document.querySelector(".sp canvas")`);
  await drag({ x: x - 60, y }, { x, y }, { x: x + 60, y: y + 6 });
  await waitFor(ready);
  await drag(await middle(button("Edit")));
  await waitFor(`document.querySelector(".sp").dataset.review === "finished"`);
  console.log(JSON.stringify(await evaluate(
    `{ mask: document.querySelector(".sp").sketchpad.props.value.mask, result: document.querySelector("[data-part=save]").href }`)));
} finally {
  firefox.kill();
  await ended;
  await rm(profile, { recursive: true, force: true });
}
