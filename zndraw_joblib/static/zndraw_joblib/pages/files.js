// The files of a task: pictures as such, all others as downloads.

import { element as h, visible } from "./elements.js";

// Types whose content no browser runs. An SVG or HTML file is a download alone.
const PICTURES = new Set(["image/png", "image/jpeg", "image/webp", "image/gif"]);
// Larger pictures are not loaded unless the reader downloads them.
const MOST_PICTURE_BYTES = 20_000_000;

/** The latest attempt's file of each name: this one a download gives. */
function latest(files) {
  const found = new Map();
  for (const file of files) {
    if (!(found.get(file.name)?.attempt > file.attempt)) found.set(file.name, file);
  }
  return [...found.values()];
}

function fileItem(taskId, file, { context, format }) {
  const name = visible(file.name);
  const url = context.api.url(["tasks", taskId, "files", file.name]);
  const type = file.content_type.split(";")[0].trim().toLowerCase();
  const link = h("a", { href: url, download: file.name }, h("bdi", {}, name));
  const facts = h("span", { class: "joblib-file-facts" }, `${format.size(file.size)} · ${visible(type)}`);
  const item = h("li", { class: "joblib-file" }, link, " ", facts);
  if (PICTURES.has(type) && file.size <= MOST_PICTURE_BYTES) {
    const image = h("img", { alt: name, loading: "lazy", decoding: "async" });
    // A file that is no picture, whatever its type says, stays a download.
    image.addEventListener("error", () => image.remove());
    image.src = url;
    item.append(image);
  }
  return item;
}

/** Shows the files of a task in a list, and changes only the entries whose file changed. */
export class FileList {
  constructor(list, tools) {
    this.list = list;
    this.tools = tools;
    this.items = new Map();
  }

  show(taskId, files) {
    const kept = new Map();
    for (const file of latest(files)) {
      const key = `${file.name}/${file.sha256}/${file.attempt}`;
      kept.set(key, this.items.get(key) ?? fileItem(taskId, file, this.tools));
    }
    for (const [key, item] of this.items) if (!kept.has(key)) item.remove();
    for (const [key, item] of kept) if (!this.items.has(key)) this.list.append(item);
    this.items = kept;
    return kept.size;
  }
}
