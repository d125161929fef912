// Links.
import assert from "node:assert/strict";
import test from "node:test";
import { packed, unpacked } from "../../../imagebart/ui/sketchpad/sharing.js";

test("a link holds what was put into it, in letters that an address may have", async () => {
  const shared = { controls: { words: "sunglasses 😀 + / =", seed: 7 }, token: "a/b.png", mask: "0 5 255 1 ".repeat(2000).trim() };
  const text = await packed(shared);
  assert.match(text, /^[\w-]+$/);
  assert.ok(text.length < 600);
  assert.deepEqual(await unpacked(text), shared);
});

test("a link that was cut holds nothing", async () => {
  const text = await packed({ token: "a", mask: "0 5 255 1" });
  for (const bad of ["", "%%", "abcd", text.slice(0, -6)]) assert.equal(await unpacked(bad), null);
});
