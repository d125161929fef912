// Links.
import assert from "node:assert/strict";
import test from "node:test";
import { decodeLink, encodeLink } from "../../../imagebart/ui/sketchpad/images.js";

test("a link holds what was put into it, in letters that an address may have", async () => {
  const shared = { controls: { words: "sunglasses 😀 + / =", seed: 7 }, token: "a/b.png", mask: "0 5 255 1 ".repeat(2000).trim() };
  const text = await encodeLink(shared);
  assert.match(text, /^[\w-]+$/);
  assert.ok(text.length < 600);
  assert.deepEqual(await decodeLink(text), shared);
});

test("a link that was cut holds nothing", async () => {
  const text = await encodeLink({ token: "a", mask: "0 5 255 1" });
  for (const bad of ["", "%%", "abcd", text.slice(0, -6)]) assert.equal(await decodeLink(bad), null);
});
