// Elements without markup: all text goes through `textContent`, because jobs, tasks and their texts
// come from workers.

let count = 0;

/** An id that no other element of the page has. */
export const freshId = (name) => `joblib-${name}-${++count}`;

/**
 * An element: `element("p", {class: "joblib-notice", hidden: true, onclick: f}, "text", child)`.
 * Attributes that are null or false are left out; functions become listeners.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(attribute.slice(2), value);
    else if (value === true) made.setAttribute(attribute, "");
    else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(attribute, value);
    }
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Changes the text of an element only where it differs, because each change costs a layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows an element, or hides it from everybody. */
export function setShown(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// Controls, and marks that change the direction of the text that follows.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A name with its invisible characters spelled out, because they can make it read as another one. */
export function visible(name) {
  const spelled = (mark) => `⟨U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  return String(name).replace(INVISIBLE, spelled);
}

/** The beginning of a text, at most `limit` characters, and never half of a character. */
export function cut(text, limit) {
  if (text.length <= limit) return text;
  const end = /[\ud800-\udbff]/.test(text[limit - 1]) ? limit - 1 : limit;
  return `${text.slice(0, end)}…`;
}

/** Offers a text as a file of this name. */
export function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A random id, also on pages without TLS, where `crypto.randomUUID` is missing. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
