// What all fields of a form have: a label, help, and a place for an error.

import { cut, element, freshId } from "./elements.js";
import { defaultOf, own, ownText } from "./schema.js";

const MAX_LABEL = 200;
/** Characters of a description that a form shows. */
export const MAX_HELP = 2000;
/** Most fields that one action makes, because thousands of them make a page slow. */
const MAX_FIELDS = 300;
/** As many choices of an `enum` cost as much as a field. */
const CHOICES_OF_A_FIELD = 100;
/** Milliseconds that one action may take, for schemas that are slow in another way. */
const MAX_TIME = 1000;

/** The text of a value in a label: a string as it is unless it is blank, anything else as JSON. */
export const valueText = (value) =>
  cut(typeof value === "string" && value.trim() ? value : JSON.stringify(value), MAX_LABEL);

/** A schema has more fields than the page can show. */
export class TooLarge extends Error {}

/** The work that one action of the user may cause, because schemas come from workers. */
export class Budget {
  constructor() {
    this.renew();
  }

  renew() {
    this.left = MAX_FIELDS;
    this.until = performance.now() + MAX_TIME;
  }

  /** Raises TooLarge where a field would be too much. */
  spend(field) {
    this.left -= 1 + (field.choices?.length ?? 0) / CHOICES_OF_A_FIELD;
    if (this.left < 0 || performance.now() > this.until) throw new TooLarge();
  }
}

/** Makes the fields of one action; those of `makeText` where they are too many. */
export function withinBudget({ budget }, make, makeText) {
  budget.renew();
  try {
    return make();
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
    budget.renew();
    return makeText();
  }
}

/**
 * The value of a field that is empty: null where the schema allows it and the property must be
 * given, or would get its default if it were left out.
 */
export function emptyValue({ field, required }, initial) {
  const matters = required || initial === null || defaultOf(field) !== undefined;
  return field.nullable && matters ? null : undefined;
}

/** A property's name as people write it: `start_angle` reads "Start angle". */
const readable = (name) =>
  /^[a-z]\w*$/i.test(name) ? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ").trimEnd() : name;

/**
 * The place of a field in the form.
 *
 * form: {root, text, budget, build, changed}; field: as `classify` returns it; name: its property,
 * "" for an item; required: whether it must be given; depth: of nesting.
 */
export function placeOf(form, field, { name = "", required = false, depth = 0, label = null } = {}) {
  form.budget.spend(field);
  const title = ownText(field.schema, "title").trim() || readable(name);
  return { form, field, name, required, depth, label: cut(label ?? (title || form.text("field.value")), MAX_LABEL) };
}

/** The help below a label: the description, and a limit in words. */
function help(place, hint) {
  const description = ownText(place.field.schema, "description").trim();
  if (!description && !hint) return null;
  const parts = [description && cut(description, MAX_HELP), hint].filter(Boolean);
  return element("p", { class: "joblib-help", id: freshId("help") }, parts.join("\n"));
}

function errorLine() {
  return element("p", { class: "joblib-error", id: freshId("error"), hidden: true });
}

/** A mark of properties that the user has to fill, because most have a default or may be left out. */
function mark({ required, name, field, form }) {
  if (!required || !name || own(field.schema, "default") !== undefined) return null;
  return element("span", { class: "joblib-required" }, ` ${form.text("field.mark")}`);
}

/**
 * Puts a control under its label. `shown` may hold the control beside others, such as a slider.
 * Returns the field: `{node, focus, showError, clearError}`.
 */
export function labelled(place, control, { shown = control, hint = "", inline = false } = {}) {
  control.id = freshId("field");
  const label = element("label", { for: control.id }, place.label, inline ? null : mark(place));
  const help_ = help(place, hint);
  const error = errorLine();
  control.setAttribute("aria-describedby", [help_?.id, error.id].filter(Boolean).join(" "));
  if (place.required && !inline) control.setAttribute("aria-required", "true");
  const node = inline
    ? element("div", { class: "joblib-field joblib-inline" }, element("div", {}, shown, label), help_, error)
    : element("div", { class: "joblib-field" }, label, help_, shown, error);
  return {
    node,
    control,
    child: () => null,
    setLabel: (text) => label.firstChild.replaceWith(text),
    focus: () => control.focus(),
    showError(message) {
      error.textContent = message;
      error.hidden = false;
      control.setAttribute("aria-invalid", "true");
    },
    clearErrors() {
      error.hidden = true;
      error.textContent = "";
      control.removeAttribute("aria-invalid");
    },
  };
}

/** A group of fields under a legend, with the same interface; `children()` are the fields in it. */
export function grouped(place, content, { hint = "", children }) {
  const error = errorLine();
  const help_ = help(place, hint);
  const described = [help_?.id, error.id].filter(Boolean).join(" ");
  const legend = element("legend", {}, place.label);
  const node = element(
    "fieldset",
    { class: "joblib-group", "aria-describedby": described, tabindex: "-1" },
    legend, help_, error, content,
  );
  return {
    node,
    setLabel: (text) => legend.firstChild.replaceWith(text),
    focus: () => node.focus(),
    showError(message) {
      error.textContent = message;
      error.hidden = false;
    },
    clearErrors() {
      error.hidden = true;
      error.textContent = "";
      for (const child of children()) child.clearErrors();
    },
  };
}

/** A button of a form that does not submit it. */
export function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", class: "joblib-small", onclick, ...attributes }, text);
}
