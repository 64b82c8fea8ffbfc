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
