// Where the picture lies on the screen: { scale, x, y }, screen pixels for one of the picture's, and the screen place of
// its upper left corner. Pure functions.

const CLOSEST = 40; // screen pixels for one of the picture's
const MARGIN = 8; // screen pixels around the picture
const KNOB = 20; // half of what a thumb takes hold of, in screen pixels

// The whole picture in the middle of its frame.
export const fit = (picture, frame) => {
  const room = (side) => Math.max(1, side - 2 * MARGIN);
  const scale = Math.min(room(frame.width) / picture.width, room(frame.height) / picture.height);
  return { scale, x: (frame.width - picture.width * scale) / 2, y: (frame.height - picture.height * scale) / 2 };
};

export const toPicture = (view, point) => ({ x: (point.x - view.x) / view.scale, y: (point.y - view.y) / view.scale });

export const toScreen = (view, point) => ({ x: point.x * view.scale + view.x, y: point.y * view.scale + view.y });

// Closer by `factor`; what lies under the point `at` stays there. Never smaller than the whole picture in its frame.
export const zoomed = (view, at, factor, picture, frame) => {
  const least = fit(picture, frame).scale;
  const scale = Math.min(Math.max(view.scale * factor, least), Math.max(CLOSEST, least));
  const ratio = scale / view.scale;
  return within({ scale, x: at.x - (at.x - view.x) * ratio, y: at.y - (at.y - view.y) * ratio }, picture, frame);
};

export const moved = (view, dx, dy, picture, frame) => within({ ...view, x: view.x + dx, y: view.y + dy }, picture, frame);

// Where before and after meet, at a share of the picture's width: the line over what is seen of the picture, and how far
// from its middle the knob stands, so that all of it is in the frame.
export const handle = (view, picture, frame, share) => {
  const left = view.x + picture.width * view.scale * share;
  const top = Math.max(0, view.y);
  const bottom = Math.min(frame.height, view.y + picture.height * view.scale);
  return { left, top, height: bottom - top, knob: Math.min(Math.max(left, KNOB), frame.width - KNOB) - left };
};

// The picture never leaves its frame: centred where it is smaller than the frame, else without a gap at the edges.
const within = (view, picture, frame) => {
  const place = (start, length, room) => {
    if (length <= room) return (room - length) / 2;
    return Math.min(MARGIN, Math.max(room - length - MARGIN, start));
  };
  return {
    scale: view.scale,
    x: place(view.x, picture.width * view.scale, frame.width),
    y: place(view.y, picture.height * view.scale, frame.height),
  };
};
