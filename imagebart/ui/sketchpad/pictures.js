// Pictures and masks on their way to and from the server: addresses and loading.
import { maskOf } from "./loaded.js";

// Where the page may ask for a file that lies on the server.
export const addressOf = (path) => {
  const config = window.gradio_config ?? {};
  const root = (config.root ?? location.origin).replace(/\/$/, "");
  return `${root}${config.api_prefix ?? "/gradio_api"}/file=${path.split("/").map(encodeURIComponent).join("/")}`;
};

export const load = async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
};

export const sheet = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

// A mask of `size` from a picture's address; null where it has another shape. Rejects where there is no picture.
export const decode = async (address, size) => {
  const image = await load(address);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const pen = sheet(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  return maskOf(pen.getImageData(0, 0, width, height).data, width, height, size);
};
