// Fields that hold any number of others: arrays, and the free names of an object.

import { element } from "./elements.js";
import { button, emptyValue, grouped, labelled, placeOf, withinBudget } from "./field.js";
import { isObject } from "./json.js";
import { own } from "./schema.js";

/** Items of arrays that a form shows; more of them are edited as text. */
export const MAX_ITEMS = 50;

/** A field for a user's new row; a schema too large for fields gets a text. */
function newField(form, subschema, options, value) {
  const make = (each) => form.build(each, options, value);
  return withinBudget(form, () => make(subschema), () => make(true));
}

/** The schemas of an array's first items, and that of the others; false where none may follow. */
function itemSchemas(schema) {
  const items = own(schema, "items");
  // Draft 7 writes a tuple as an array of `items`.
  if (Array.isArray(items)) return { first: items, rest: own(schema, "additionalItems") ?? true };
  const prefix = own(schema, "prefixItems");
  return { first: Array.isArray(prefix) ? prefix : [], rest: items ?? true };
}

export function arrayField(place, initial) {
  const { form, field, depth } = place;
  const { schema } = field;
  const { first, rest } = itemSchemas(schema);
  const most = Math.min(
    Number.isInteger(schema.maxItems) ? schema.maxItems : Infinity,
    rest === false ? first.length : Infinity,
  );
  const least = Number.isInteger(schema.minItems) ? schema.minItems : 0;
  const list = element("ol", { class: "joblib-items" });
  let rows = [];
  const label = (index) => form.text("array.item", { number: index + 1 });

  const addButton = button(form.text("array.add"), () => {
    const row = makeRow(rows.length, undefined, newField);
    rows.push(row);
    list.append(row.node);
    renumber();
    row.field.focus();
    form.changed();
  });

  function makeRow(index, value, build) {
    const options = { required: true, depth: depth + 1, label: label(index) };
    const inner = build(form, first[index] ?? rest, options, value);
    const row = { field: inner, fixed: index < first.length };
    const icons = [
      ["up", "↑", () => move(row, -1)],
      ["down", "↓", () => move(row, 1)],
      ["remove", "✕", () => remove(row)],
    ];
    row.buttons = row.fixed ? [] : icons.map(([key, icon, act]) => {
      const made = button(icon, act);
      made.dataset.act = key;
      return made;
    });
    const tools = row.fixed ? null : element("div", { class: "joblib-buttons" }, row.buttons);
    row.node = element("li", {}, inner.node, tools);
    return row;
  }

  function renumber() {
    rows.forEach((row, index) => {
      row.field.setLabel(label(index));
      for (const each of row.buttons) {
        each.setAttribute("aria-label", form.text(`array.${each.dataset.act}`, { number: index + 1 }));
        if (each.dataset.act === "up") each.disabled = index <= first.length;
        if (each.dataset.act === "down") each.disabled = index === rows.length - 1;
      }
    });
    addButton.disabled = rows.length >= Math.min(most, MAX_ITEMS);
  }

  function tupleToggle() {
    const toggle = element("input", { type: "checkbox" });
    toggle.checked = rows.length > 0;
    toggle.addEventListener("change", () => {
      rows = toggle.checked ? first.map((_, index) => makeRow(index, undefined, newField)) : [];
      list.replaceChildren(...rows.map((row) => row.node));
      renumber();
      form.changed();
    });
    const text = form.text("group.give", { label: place.label });
    return element("label", { class: "joblib-toggle" }, toggle, ` ${text}`);
  }

  function move(row, by) {
    const index = rows.indexOf(row);
    const other = rows[index + by];
    if (!other || other.fixed) return;
    rows[index] = other;
    rows[index + by] = row;
    if (by < 0) other.node.before(row.node);
    else other.node.after(row.node);
    renumber();
    const [up, down] = row.buttons;
    const same = by < 0 ? up : down;
    (same.disabled ? (by < 0 ? down : up) : same).focus();
    form.changed();
  }

  function remove(row) {
    const index = rows.indexOf(row);
    rows.splice(index, 1);
    row.node.remove();
    renumber();
    const next = rows[Math.min(index, rows.length - 1)];
    (next?.buttons.at(-1) ?? addButton).focus();
    form.changed();
  }

  const values = Array.isArray(initial) ? initial : [];
  // A default with more items than the schema allows is shown as it is, and refused by the server.
  const wanted = place.required || values.length
    ? Math.max(values.length, Math.min(least, most, MAX_ITEMS), first.length)
    : 0;
  const straight = (form_, subschema, options, value) => form_.build(subschema, options, value);
  for (let index = 0; index < wanted; index++) {
    rows.push(makeRow(index, values[index], straight));
  }
  list.append(...rows.map((row) => row.node));
  renumber();
  // A tuple of a fixed length has all its items or is left out.
  const isTuple = first.length > 0 && most <= first.length;
  const hints = [];
  if (!isTuple && least > 0) hints.push(form.text("hint.minItems", { number: least }));
  if (!isTuple && most < Infinity) hints.push(form.text("hint.maxItems", { number: most }));
  const content = isTuple ? [list] : [list, addButton];
  if (isTuple && !place.required) content.unshift(tupleToggle());
  const children = () => rows.map((row) => row.field);
  return {
    ...grouped(place, content, { hint: hints.join(" "), children }),
    child: (token) => (/^\d+$/.test(token) ? (rows[Number(token)]?.field ?? null) : null),
    names: () => [],
    get() {
      if (!rows.length && !place.required && (isTuple || !Array.isArray(initial))) {
        return emptyValue(place, initial);
      }
      if (!rows.length && field.nullable && !Array.isArray(initial)) return null;
      // An item that is left empty is null, which the server refuses at its place.
      return rows.map((row) => row.field.get() ?? null);
    },
    check: () => children().flatMap((each) => each.check()),
  };
}

/** Rows of names and values. `taken(name)` says whether the object has a field of this name. */
export function dictionaryRows(place, subschema, entries, taken) {
  const { form, depth } = place;
  const list = element("ul", { class: "joblib-items" });
  let rows = [];

  function makeRow(name, value, build) {
    const namePlace = placeOf(form, { kind: "string", schema: {} }, { required: true, label: form.text("dict.name") });
    const input = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    input.value = name;
    input.addEventListener("input", () => form.changed());
    const nameField = labelled(namePlace, input);
    const options = { required: true, depth: depth + 1, label: form.text("field.value") };
    const row = { input, nameField, field: build(form, subschema, options, value) };
    const removeButton = button("✕", () => {
      rows = rows.filter((each) => each !== row);
      row.node.remove();
      addButton.focus();
      form.changed();
    });
    removeButton.setAttribute("aria-label", form.text("dict.remove"));
    row.node = element("li", {}, nameField.node, row.field.node, element("div", { class: "joblib-buttons" }, removeButton));
    return row;
  }

  const addButton = button(form.text("dict.add"), () => {
    const row = makeRow("", undefined, newField);
    rows.push(row);
    list.append(row.node);
    row.input.focus();
    form.changed();
  });
  const straight = (form_, schema, options, value) => form_.build(schema, options, value);
  rows = entries.map(([name, value]) => makeRow(name, value, straight));
  list.append(...rows.map((row) => row.node));

  return {
    node: element("div", { class: "joblib-slot" }, list, addButton),
    fields: () => rows.flatMap((row) => [row.nameField, row.field]),
    child: (name) => rows.find((row) => row.input.value === name)?.field ?? null,
    entries: () => rows.filter((row) => row.input.value !== "").map((row) => [row.input.value, row.field.get() ?? null]),
    check() {
      const seen = new Set();
      return rows.flatMap((row) => {
        const name = row.input.value;
        const key = name === "" ? "field.required" : taken(name) || seen.has(name) ? "dict.twice" : null;
        seen.add(name);
        return [...(key ? [{ field: row.nameField, message: form.text(key) }] : []), ...row.field.check()];
      });
    },
  };
}

/** Whether a value has too many items or names for a row each. */
export const hasTooMany = (value) =>
  (Array.isArray(value) && value.length > MAX_ITEMS) ||
  (isObject(value) && Object.keys(value).length > 4 * MAX_ITEMS);
