// What survives a reload, for each tab by itself: the picture's name and the mask in the tab's storage, written at once
// at every change; the picture's file in the browser's database, for a server that forgot it.

const NOW = "imagebart-sketchpad";
const [DATABASE, FILES] = ["imagebart", "files"];
const AGE = 24 * 3600e3; // milliseconds that a file is kept

export const remember = (name, value) => {
  try {
    sessionStorage.setItem(`${NOW}-${name}`, JSON.stringify(value));
  } catch { // full, or not allowed: then a reload begins anew
    sessionStorage.removeItem(`${NOW}-${name}`);
  }
};

export const recall = (name) => {
  try {
    return JSON.parse(sessionStorage.getItem(`${NOW}-${name}`));
  } catch {
    return null;
  }
};

const database = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(FILES, { keyPath: "path" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const within = async (mode, act) => {
  const opened = await database();
  try {
    return await new Promise((resolve, reject) => {
      const request = act(opened.transaction(FILES, mode).objectStore(FILES));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } finally {
    opened.close();
  }
};

// Keep a picture's file; those that are old are forgotten.
export const keepFile = async (path, blob) => {
  try {
    const all = await within("readonly", (files) => files.getAll());
    for (const old of all.filter(({ when }) => Date.now() - when > AGE)) {
      await within("readwrite", (files) => files.delete(old.path));
    }
    await within("readwrite", (files) => files.put({ path, blob, when: Date.now() }));
  } catch { // a private window may have none
    return;
  }
};

export const fileOf = async (path) => {
  try {
    return (await within("readonly", (files) => files.get(path)))?.blob ?? null;
  } catch {
    return null;
  }
};
