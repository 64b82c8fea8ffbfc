// Fields of single values. Each has `get()`: its value, undefined where it is left out; and
// `check()`: the errors that need no server, `[{field, message}]`.

import { element } from "./dom.js";
import { labelled, valueText } from "./field.js";
import { isBigInteger, parseJSON } from "./json.js";
import { limits, own, ownText } from "./schema.js";

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
      if (value === undefined && place.required) {
        return [{ field, message: place.form.text("field.required") }];
      }
      return [];
    },
  });
}

/** The value of an empty field: null where the schema allows it and it must be given. */
function empty(place) {
  if (!place.field.nullable) return undefined;
  return place.required || own(place.field.schema, "default") === null ? null : undefined;
}

export function stringField(place, initial) {
  const { schema } = place.field;
  let type = INPUT_TYPES[own(schema, "format")] ?? "text";
  if (type === "datetime-local" && initial && !localTime(initial)) type = "text";
  const long = schema.maxLength > 200 || /\n/.test(initial ?? "") || ownText(schema, "format") === "textarea";
  const control = long && type === "text"
    ? element("textarea", { rows: 4 })
    : element("input", { type, autocomplete: type === "password" ? "new-password" : "off" });
  if (type === "datetime-local") control.step = 1;
  if (type === "text") control.spellcheck = false;
  const shown = type === "datetime-local" ? localTime(initial ?? "") : (initial ?? "");
  control.value = shown;
  listen(place, control);
  const hints = [];
  for (const [keyword, key] of [["minLength", "hint.minLength"], ["maxLength", "hint.maxLength"]]) {
    if (schema[keyword] > 0) hints.push(place.form.text(key, { number: schema[keyword] }));
  }
  const field = labelled(place, control, { hint: hints.join(" ") });
  return withValue(field, place, () => {
    if (control.validity.badInput) throw new Error(place.form.text("field.invalid"));
    if (control.value === "") {
      // A default of "" is a value; another empty field is left out.
      return initial === "" ? "" : empty(place);
    }
    if (type !== "datetime-local") return control.value;
    // An untouched default keeps its own offset.
    return control.value === shown && initial ? initial : instant(control.value);
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

function slider(place, control, { low, high, step, excludesLow, excludesHigh }) {
  const width = high - low;
  if (!(width > 0) || !Number.isFinite(width) || !(width < Number.MAX_SAFE_INTEGER)) return null;
  const each = step ?? sliderStep(width);
  const range = element("input", {
    type: "range",
    min: excludesLow ? low + each : low,
    max: excludesHigh ? high - each : high,
    step: each,
    "aria-label": place.form.text("field.slider", { label: place.label }),
  });
  const follow = () => {
    range.value = control.value === "" ? low : control.value;
    // Because a number between two steps moves the slider to the next one.
    if (control.value === "") range.removeAttribute("aria-valuetext");
    else range.setAttribute("aria-valuetext", control.value);
  };
  follow();
  control.addEventListener("input", follow);
  range.addEventListener("input", () => {
    control.value = range.value;
    range.setAttribute("aria-valuetext", range.value);
    place.form.changed();
  });
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
    if (control.value === "") return empty(place);
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
  if (place.required || initial === true || initial === false) {
    if (!place.field.nullable) {
      const control = element("input", { type: "checkbox" });
      control.checked = initial === true;
      listen(place, control);
      return withValue(labelled(place, control, { inline: true }), place, () => control.checked);
    }
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
  if (given < 0 || nullable || !place.required) control.append(element("option", { value: "" }, nothing));
  choices.forEach(({ value, label }, index) => {
    control.append(element("option", { value: index }, label || valueText(value)));
  });
  control.value = given < 0 ? "" : given;
  listen(place, control);
  return withValue(labelled(place, control), place, () =>
    control.value === "" ? empty(place) : choices[Number(control.value)].value,
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
    if (control.value.trim() === "") return empty(place);
    try {
      return parseJSON(control.value);
    } catch (error) {
      throw new Error(place.form.text("field.json", { reason: error.message }));
    }
  });
}
