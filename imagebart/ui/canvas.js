// The canvas: it fills its frame, and shows which tokens an edit would redraw, before it runs. All of it happens here
// in the browser: reading the canvas on the server would upload every layer at each stroke. Gradio puts its editor at
// window.editor; where it does not, the page works as before, without the grid.
(() => {
  const LEAST_CONTEXT = 1 / 8; // as in imagebart/crop.py
  const QUIET = 120; // milliseconds without a change before the grid is drawn again
  let editor = null;
  let overlay = null;
  let grid = null; // { box, side, cells }, in pixels of the upload
  let waiting = 0;
  const PAINT = "imagebart-paint"; // in the tab's storage: what is painted, as a PNG; see CANVAS_READY in page.py

  const frame = () => document.querySelector("#canvas .pixi-target");
  const number = (id, name) => Number(document.querySelector(`#${id} [data-${name}]`)?.dataset[name]);

  // Gradio measures its frame before the page has its final layout, and centres the picture on the frame's old size.
  const fit = () => {
    const { width, height } = frame()?.getBoundingClientRect() ?? {};
    if (!editor?.app?.renderer || !width || !height) return;
    // Its dark background is a grey of its own; an opaque canvas shows whatever is behind it only in that colour.
    editor.app.renderer.background.color = getComputedStyle(document.getElementById("canvas")).backgroundColor;
    editor.resize_canvas(width, height);
    editor.tools.get("zoom").set_zoom("fit");
    editor.wake_render_loop();
    draw();
  };

  // Where something is painted, in pixels of the canvas's copy: Uint8Array [height * width].
  const painted = () => {
    const { width, height, app } = editor;
    const whole = app.screen.clone();
    Object.assign(whole, { x: 0, y: 0, width, height });
    const mask = new Uint8Array(width * height);
    for (const { container } of editor.layer_manager.get_layers()) {
      const { pixels } = app.renderer.extract.pixels({ target: container, resolution: 1, frame: whole });
      for (let i = 0; i < mask.length; i++) mask[i] |= pixels[4 * i + 3];
    }
    return mask;
  };

  const bounds = (mask, width) => {
    let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
    mask.forEach((value, i) => {
      if (!value) return;
      const x = i % width, y = (i - x) / width;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y + 1);
    });
    return right < 0 ? null : { left, top, right, bottom };
  };

  // A page that is loaded again asks for what was painted on it, whether or not anything was run with it.
  // Once, when it is left: a PNG at every stroke would hold up the drawing.
  const remember = () => {
    sessionStorage.removeItem(PAINT);
    if (!editor?.layer_manager) return;
    const { width, height } = editor, mask = painted();
    if (!mask.some(Boolean)) return;
    const sheet = Object.assign(document.createElement("canvas"), { width, height });
    const pixels = new Uint32Array(width * height);
    for (let i = 0; i < pixels.length; i++) pixels[i] = mask[i] ? 0xffffffff : 0xff000000;
    sheet.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
    sessionStorage.setItem(PAINT, sheet.toDataURL());
  };

  // Pixels of the upload, from and to, whose paint comes from canvas pixels [low, high); see picture.py.
  const outward = (low, high, view, upload) => upload <= view
    ? [Math.floor(low * upload / view), Math.ceil(high * upload / view)]
    : [Math.ceil(low * upload / view - 0.5), Math.ceil(high * upload / view - 0.5)];

  // The other way: canvas pixels that decide whether upload pixels [low, high) are painted.
  const inward = (low, high, view, upload) => upload <= view
    ? [Math.floor(low * view / upload), Math.ceil(high * view / upload)]
    : [Math.floor((low + 0.5) * view / upload), Math.floor((high - 0.5) * view / upload) + 1];

  // The square that the model works on; `crop_box` of imagebart/crop.py.
  const square = (area, width, height, size, context) => {
    const longest = Math.max(area.right - area.left, area.bottom - area.top);
    const margin = Math.ceil(longest * LEAST_CONTEXT);
    const across = Math.min(width, area.right + margin) - Math.max(0, area.left - margin);
    const down = Math.min(height, area.bottom + margin) - Math.max(0, area.top - margin);
    const least = Math.max(across, down), shorter = Math.min(width, height);
    const room = least <= shorter ? shorter : Math.max(width, height);
    const wanted = context === Infinity ? room : Math.ceil(longest * (1 + 2 * context));
    const side = Math.min(Math.max(wanted, size, least), room);
    const start = (twice, length) => side > length
      ? -Math.floor((side - length) / 2)
      : Math.min(Math.max(Math.floor((twice - side) / 2), 0), length - side);
    return { left: start(area.left + area.right, width), top: start(area.top + area.bottom, height), side };
  };

  const context = () => {
    const input = document.querySelector("#context input[type=range]");
    return !input || Number(input.value) >= Number(input.max) ? Infinity : Number(input.value);
  };

  // Which cells of the model's grid hold paint; null where nothing is painted.
  const redrawn = () => {
    if (!editor?.layer_manager) return null; // the page is still being built
    const view = { width: editor.width, height: editor.height };
    const width = number("facts", "width"), height = number("facts", "height");
    const size = number("model", "size"), side = number("model", "grid");
    if (!width || !height || !size || !side) return null;
    const mask = painted();
    const found = bounds(mask, view.width);
    if (!found) return null;
    const [left, right] = outward(found.left, found.right, view.width, width);
    const [top, bottom] = outward(found.top, found.bottom, view.height, height);
    const box = square({ left, top, right, bottom }, width, height, size, context());
    const cells = [];
    for (let row = 0; row < side; row++) {
      for (let column = 0; column < side; column++) {
        const span = (start, index, length, most) => inward(
          Math.max(0, Math.floor((start * side + index * box.side) / side)),
          Math.min(length, Math.ceil((start * side + (index + 1) * box.side) / side)), most, length);
        const [x0, x1] = span(box.left, column, width, view.width);
        const [y0, y1] = span(box.top, row, height, view.height);
        let hit = false;
        for (let y = y0; y < y1 && !hit; y++) for (let x = x0; x < x1 && !hit; x++) hit = mask[y * view.width + x] > 0;
        cells.push(hit);
      }
    }
    return { box, side, cells, scale: view.width / width };
  };

  const draw = () => {
    if (!overlay || !editor) return;
    const { width, height } = frame().getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    overlay.width = width * ratio;
    overlay.height = height * ratio;
    if (!grid || !document.querySelector("#show-grid input")?.checked) return;
    const { box, side, cells, scale } = grid, cell = box.side / side * scale * editor.scale_value;
    const left = editor.position_value.x + box.left * scale * editor.scale_value;
    const top = editor.position_value.y + box.top * scale * editor.scale_value;
    const pen = overlay.getContext("2d");
    pen.scale(ratio, ratio);
    for (const [colour, thickness] of [["rgba(15, 23, 42, 0.75)", 2], ["#fff", 1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thickness;
      cells.forEach((hit, i) => {
        if (hit) pen.strokeRect(left + (i % side) * cell, top + Math.floor(i / side) * cell, cell, cell);
      });
    }
  };

  const tell = () => {
    const line = document.getElementById("grid-line");
    const count = grid?.cells.filter(Boolean).length ?? 0, all = number("model", "grid") ** 2;
    const text = grid ? `${count} of ${all} tokens will be redrawn` : "Nothing is painted yet";
    if (line && line.textContent !== text) line.textContent = text;
    if (overlay) overlay.dataset.cells = grid ? grid.cells.map(Number).join("") : "";
  };

  const look = () => {
    try {
      grid = redrawn();
    } catch (error) { // another version of Gradio: no grid is better than no page
      console.warn("The grid cannot be shown:", error);
      grid = null;
    }
    tell();
    draw();
  };

  const changed = () => {
    clearTimeout(waiting);
    waiting = setTimeout(look, QUIET);
  };

  // Gradio makes a layer as large as all that is on the canvas, the last picture too, and centres the mask on it. Ours
  // are as large as their picture.
  const keepSizes = (manager) => {
    const add = manager.add_layer_from_url.bind(manager), container = manager.image_container;
    manager.add_layer_from_url = async (url) => {
      const image = Object.assign(new Image(), { src: url });
      await image.decode();
      container.getLocalBounds = () => ({ x: 0, y: 0, width: image.naturalWidth, height: image.naturalHeight });
      const added = add(url); // measures at once
      delete container.getLocalBounds;
      return added;
    };
  };

  const attach = () => {
    if (!window.editor || window.editor === editor || !frame()) return;
    editor = window.editor;
    overlay = Object.assign(document.createElement("canvas"), { id: "grid-overlay" });
    overlay.setAttribute("aria-hidden", "true");
    frame().after(overlay);
    editor.on("change", changed);
    editor.ready.then(() => {
      keepSizes(editor.layer_manager);
      editor.layers.subscribe(changed);
      for (const store of [editor.scale, editor.position, editor.dimensions]) store.subscribe(draw);
      new ResizeObserver(fit).observe(frame());
      fit();
      changed();
    });
  };

  addEventListener("pagehide", remember);
  document.addEventListener("input", (event) => {
    if (event.target.closest?.("#context")) changed();
    if (event.target.closest?.("#show-grid")) draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(fit, QUIET));
  new MutationObserver((changes) => {
    attach();
    if (changes.some(({ target }) => target.closest?.("#facts, #model"))) changed();
  }).observe(document, { childList: true, subtree: true });
})();
