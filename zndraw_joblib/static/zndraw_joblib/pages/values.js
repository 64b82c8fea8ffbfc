// Fields of single values. Each has `get()`: its value, undefined where it is left out; and
// `check()`: the errors that need no server, `[{field, message}]`.

import { element } from "./elements.js";
import { emptyValue, labelled, valueText } from "./field.js";
import { isBigInteger, parseJSON } from "./json.js";
import { defaultOf, limits, own, ownText } from "./schema.js";

const INPUT_TYPES = {
  date: "date", email: "email", uri: "url", "date-time": "datetime-local", password: "password",
};

/** `YYYY-MM-DDThh:mm:ss` in local time, as an input shows it; "" for no time. */
function localTime(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** The RFC 3339 time of an input in local time. */
export const instant = (local) => new Date(local).toISOString();

function listen(place, control) {
  for (const type of ["input", "change"]) control.addEventListener(type, () => place.form.changed());
}

/** Adds `get` and `check`; `read()` throws an Error whose message is for the user. */
function withValue(field, place, read) {
  const attempt = () => {
    try {
      return { value: read() };
    } catch (error) {
      return { error: error.message };
    }
  };
  return Object.assign(field, {
    get: () => attempt().value,
    check() {
      const { value, error } = attempt();
      if (error) return [{ field, message: error }];
      // Left out, the property would get its default instead of the nothing that the form shows.
      if (value === undefined && (place.required || defaultOf(place.field) !== undefined)) {
        return [{ field, message: place.form.text("field.required") }];
      }
      return [];
    },
  });
}

export function stringField(place, initial) {
  const { schema } = place.field;
  const format = ownText(schema, "format");
  const given = initial ?? "";
  let type = own(INPUT_TYPES, format) ?? "text";
  const long = schema.maxLength > 200 || /[\n\r]/.test(given) || format === "textarea";
  const control = long && type === "text"
    ? element("textarea", { rows: 4 })
    : element("input", { type, autocomplete: type === "password" ? "new-password" : "off" });
  if (type === "datetime-local") control.step = 1;
  if (type === "text") control.spellcheck = false;
  control.value = type === "datetime-local" ? localTime(given) : given;
  if (given && !control.value) {
    // A field for dates cannot show "today".
    control.type = type = "text";
    control.value = given;
  }
  const shown = control.value;
  listen(place, control);
  const hints = [];
  for (const [keyword, key] of [["minLength", "hint.minLength"], ["maxLength", "hint.maxLength"]]) {
    if (schema[keyword] > 0) hints.push(place.form.text(key, { number: schema[keyword] }));
  }
  const field = labelled(place, control, { hint: hints.join(" ") });
  return withValue(field, place, () => {
    if (control.validity.badInput) throw new Error(place.form.text("field.invalid"));
    // Untouched it keeps its offset from UTC and its line ends, which controls change.
    if (control.value === shown && typeof initial === "string") return initial;
    if (type === "datetime-local" && control.value) return instant(control.value);
    if (control.value) return control.value;
    // Whoever empties a text that has a default asks for an empty one.
    const clearable = !place.field.nullable && (type === "text" || type === "password");
    return clearable && defaultOf(place.field) !== undefined ? "" : emptyValue(place, initial);
  });
}

/** A round step that divides the range into 100 to 500 parts, or a hundredth where none fits it. */
function sliderStep(width) {
  const hundredth = width / 100;
  const power = 10 ** Math.floor(Math.log10(hundredth));
  const round = [5, 2, 1].map((digit) => Number((digit * power).toPrecision(1))).find((each) => each <= hundredth);
  const fits = round && Number.isInteger(Number((width / round).toPrecision(12)));
  return fits ? round : Number(hundredth.toPrecision(3));
}

/** The numbers between which a slider moves, which counts its steps from `min`. */
function track({ low, high, step, excludesLow, excludesHigh }) {
  if (step === null) {
    const each = sliderStep(high - low);
    return { each, min: excludesLow ? low + each : low, max: excludesHigh ? high - each : high };
  }
  // Rounded, because 1.1 / 0.1 is a little above 11.
  const rounded = (number) => Number(number.toPrecision(12));
  const [first, last] = [rounded(low / step), rounded(high / step)];
  const min = Math.ceil(first) + (excludesLow && Number.isInteger(first) ? 1 : 0);
  const max = Math.floor(last) - (excludesHigh && Number.isInteger(last) ? 1 : 0);
  return { each: step, min: rounded(min * step), max: rounded(max * step) };
}

function slider(place, control, bounds) {
  const { low, high } = bounds;
  const { each, min, max } = track(bounds);
  if (!(max > min) || !(high - low < Number.MAX_SAFE_INTEGER)) return null;
  const range = element("input", {
    type: "range", min, max, step: each,
    "aria-label": place.form.text("field.slider", { label: place.label }),
  });
  const follow = () => {
    range.value = control.value === "" ? min : control.value;
    // Because a number between two steps moves the slider to the next one.
    if (control.value === "") range.removeAttribute("aria-valuetext");
    else range.setAttribute("aria-valuetext", control.value);
  };
  follow();
  control.addEventListener("input", follow);
  // A click on the slider's present place is no input, but chooses the number of an empty field.
  for (const type of ["input", "click"]) {
    range.addEventListener(type, () => {
      control.value = range.value;
      range.setAttribute("aria-valuetext", range.value);
      place.form.changed();
    });
  }
  return element("div", { class: "joblib-range" }, range, control);
}

function limitHint(place, { low, high, excludesLow, excludesHigh }) {
  const { text } = place.form;
  if (low !== null && high !== null && !excludesLow && !excludesHigh) return text("hint.range", { low, high });
  const parts = [];
  if (low !== null) parts.push(text(excludesLow ? "hint.above" : "hint.least", { number: low }));
  if (high !== null) parts.push(text(excludesHigh ? "hint.below" : "hint.most", { number: high }));
  return parts.join(" ");
}

export function numberField(place, initial) {
  const whole = place.field.kind === "integer";
  const bounds = limits(place.field);
  // Text keeps the digits of integers beyond 2^53. The step is any, because the server checks it.
  const control = element("input", { type: "number", step: whole ? 1 : "any", autocomplete: "off" });
  if (initial !== undefined && initial !== null) control.value = JSON.stringify(initial);
  listen(place, control);
  const both = bounds.low !== null && bounds.high !== null;
  const shown = (both && slider(place, control, bounds)) || control;
  const field = labelled(place, control, { shown, hint: limitHint(place, bounds) });
  return withValue(field, place, () => {
    const { form } = place;
    if (control.validity.badInput) throw new Error(form.text("field.number"));
    if (control.value === "") return emptyValue(place, initial);
    const number = Number(control.value);
    if (!Number.isFinite(number)) throw new Error(form.text("field.number"));
    if (whole && !Number.isInteger(number)) throw new Error(form.text("field.integer"));
    if (!Number.isInteger(number) || Number.isSafeInteger(number)) return number;
    if (!/^-?\d+$/.test(control.value)) return number;
    const exact = parseJSON(control.value.replace(/^(-?)0+(?=\d)/, "$1"));
    if (!isBigInteger(exact)) throw new Error(form.text("field.tooLarge"));
    return exact;
  });
}

export function booleanField(place, initial) {
  if (!place.field.nullable && (place.required || typeof initial === "boolean")) {
    const control = element("input", { type: "checkbox" });
    control.checked = initial === true;
    listen(place, control);
    return withValue(labelled(place, control, { inline: true }), place, () => control.checked);
  }
  const { text } = place.form;
  const choices = [
    { value: true, label: text("field.yes") },
    { value: false, label: text("field.no") },
  ];
  return choiceField({ ...place, field: { ...place.field, choices } }, initial);
}

export function choiceField(place, initial) {
  const { choices, nullable } = place.field;
  const control = element("select");
  const initialText = JSON.stringify(initial);
  const given = choices.findIndex((each) => JSON.stringify(each.value) === initialText);
  const nothing = place.form.text(nullable ? "field.none" : "field.choose");
  const mayBeEmpty = nullable || !(place.required || defaultOf(place.field) !== undefined);
  if (given < 0 || mayBeEmpty) control.append(element("option", { value: "" }, nothing));
  const labels = choices.map(({ value, label }) => label || valueText(value));
  const count = new Map();
  for (const label of labels) count.set(label, (count.get(label) ?? 0) + 1);
  choices.forEach(({ value }, index) => {
    // The text "1" beside the number 1.
    const unclear = typeof value === "string" && count.get(labels[index]) > 1;
    const label = unclear ? JSON.stringify(value) : labels[index];
    control.append(element("option", { value: index }, label));
  });
  control.value = given < 0 ? "" : given;
  listen(place, control);
  return withValue(labelled(place, control), place, () =>
    control.value === "" ? emptyValue(place, initial) : choices[Number(control.value)].value,
  );
}

export function constField(place) {
  const value = place.field.kind === "null" ? null : place.field.value;
  const control = element("output", {}, valueText(value));
  return withValue(labelled(place, control), place, () => value);
}

export function jsonField(place, initial) {
  const control = element("textarea", { rows: 4, spellcheck: "false", class: "joblib-code" });
  if (initial !== undefined) control.value = JSON.stringify(initial, null, 2);
  listen(place, control);
  const field = labelled(place, control, { hint: place.form.text("hint.json") });
  return withValue(field, place, () => {
    if (control.value.trim() === "") return emptyValue(place, initial);
    try {
      return parseJSON(control.value);
    } catch (error) {
      throw new Error(place.form.text("field.json", { reason: error.message }));
    }
  });
}
