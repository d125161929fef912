// What the buttons and keys of the sketchpad do, by name.

const MOVE = 60; // screen pixels that an arrow key moves the picture by
const CLOSER = 1.25;
const STEP = 5; // of the brush's slider

const TOOLS = ["brush", "eraser", "rectangle", "lasso"].map((name) => [name, (pad) => pad.tool(name)]);
const MASKS = ["invert", "grow", "shrink", "clear"].map((name) => [name, (pad) => pad.make(name)]);

export const ACTS = {
  ...Object.fromEntries([...TOOLS, ...MASKS]),
  smaller: (pad) => pad.size(-STEP),
  larger: (pad) => pad.size(STEP),
  closer: ({ canvas }) => canvas.zoom(CLOSER),
  farther: ({ canvas }) => canvas.zoom(1 / CLOSER),
  whole: ({ canvas }) => canvas.whole(),
  left: ({ canvas }) => canvas.move(MOVE, 0),
  right: ({ canvas }) => canvas.move(-MOVE, 0),
  up: ({ canvas }) => canvas.move(0, MOVE),
  down: ({ canvas }) => canvas.move(0, -MOVE),
  undo: (pad) => (pad.review.finished && pad.discard()) || pad.state.undo(),
  redo: ({ state }) => state.redo(),
  find: (pad) => pad.shown() && pad.looking.find(),
  describe: (pad) => pad.shown() && pad.looking.describe(),
  keep: (pad) => pad.keep(),
  discard: (pad) => pad.discard(),
  lastMask: (pad) => pad.useLastMask(),
  compare: (pad) => pad.peek(true),
  upload: ({ parts }) => parts.file.click(),
  loadMask: ({ parts }) => parts.maskFile.click(),
  help: (pad) => pad.help(),
  cancel: (pad) => (pad.parts.help.hidden ? pad.asked.cancel() : pad.help(false)),
};
