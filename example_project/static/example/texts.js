// The texts of the viewer, which its template has in the language of the page.

const texts = document.getElementById("viewer").dataset;

/** The text of a key, with each `{name}` replaced by the value of this name. */
export const text = (key, values = {}) => texts[key].replace(/\{(\w+)\}/g, (match, name) => values[name] ?? match);
