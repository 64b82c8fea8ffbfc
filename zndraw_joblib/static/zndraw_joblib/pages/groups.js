// Fields that hold other fields: objects and unions. See `lists.js` for arrays and dictionaries.

import { cut, element } from "./elements.js";
import { emptyValue, grouped, valueText, withinBudget } from "./field.js";
import { isObject } from "./json.js";
import { dictionaryRows } from "./lists.js";
import { classify, fits, optionOf, own, ownText } from "./schema.js";
import { choiceField } from "./values.js";

/** Unions below this depth begin without a choice, because a recursive one would go on and on. */
const MAX_CHOSEN_DEPTH = 3;

function properties(place, value) {
  const { form, field, depth } = place;
  const { schema } = field;
  const declared = isObject(own(schema, "properties")) ? schema.properties : {};
  const required = new Set(Array.isArray(own(schema, "required")) ? schema.required : []);
  const fields = new Map();
  const add = (name, subschema) => {
    const options = { name, required: required.has(name), depth: depth + 1 };
    fields.set(name, form.build(subschema, options, own(value, name)));
  };
  for (const [name, subschema] of Object.entries(declared)) {
    if (subschema !== false) add(name, subschema);
  }
  const additional = own(schema, "additionalProperties");
  const patterns = isObject(own(schema, "patternProperties")) ? Object.values(schema.patternProperties) : [];
  // Of several schemas the name decides, which is not known before it is typed.
  const known = [...patterns, ...(isObject(additional) ? [additional] : [])];
  const other = known.length === 1 && (patterns.length === 0 || additional === false) ? known[0] : true;
  // The engine refuses a payload without them, though the schema does not declare them.
  for (const name of required) {
    if (typeof name === "string" && !Object.hasOwn(declared, name)) add(name, other);
  }
  const others = Object.entries(value).filter(([name]) => !fields.has(name));
  const open = isObject(additional) || additional === true || !isObject(own(schema, "properties"));
  const rows = (open && additional !== false) || patterns.length || others.length
    ? dictionaryRows(place, other, others, (name) => fields.has(name))
    : null;
  return {
    nodes: [...[...fields.values()].map((each) => each.node), ...(rows ? [rows.node] : [])],
    fields: () => [...fields.values(), ...(rows ? rows.fields() : [])],
    child: (name) => fields.get(name) ?? rows?.child(name) ?? null,
    names: () => [...fields.keys()],
    get() {
      const entries = [...fields].map(([name, each]) => [name, each.get()]);
      // `fromEntries` makes own properties, also of `__proto__`.
      return Object.fromEntries([
        ...entries.filter(([, each]) => each !== undefined),
        ...(rows ? rows.entries() : []),
      ]);
    },
    check: () => [...[...fields.values()].flatMap((each) => each.check()), ...(rows ? rows.check() : [])],
  };
}

/** An object; `bare` is the payload itself, which has no frame and is always given. */
export function objectField(place, initial, { bare = false } = {}) {
  const slot = element("div", { class: "joblib-slot" });
  let inner = null;
  const fill = (value) => {
    inner = withinBudget(
      place.form,
      () => properties(place, value),
      () => properties({ ...place, field: { ...place.field, schema: { type: "object" } } }, value),
    );
    slot.replaceChildren(...inner.nodes);
  };
  const children = () => inner?.fields() ?? [];
  const interface_ = {
    child: (name) => inner?.child(name) ?? null,
    names: () => inner?.names() ?? [],
    get: () => (inner ? inner.get() : emptyValue(place, initial)),
    check: () => inner?.check() ?? [],
  };
  if (bare) {
    // Not by `withinBudget`, because the whole form becomes a text where this is too large.
    inner = properties(place, isObject(initial) ? initial : {});
    slot.append(...inner.nodes);
    const clearErrors = () => children().forEach((each) => each.clearErrors());
    return { node: slot, ...interface_, clearErrors };
  }
  const content = [slot];
  if (!place.required || place.field.nullable) {
    const given = initial !== undefined && initial !== null;
    const toggle = element("input", { type: "checkbox" });
    toggle.checked = given;
    toggle.addEventListener("change", () => {
      if (toggle.checked) fill(isObject(initial) ? initial : {});
      else {
        inner = null;
        slot.replaceChildren();
      }
      place.form.changed();
    });
    const text = place.form.text("group.give", { label: place.label });
    content.unshift(element("label", { class: "joblib-toggle" }, toggle, ` ${text}`));
    if (given) {
      inner = properties(place, initial);
      slot.append(...inner.nodes);
    }
  } else {
    inner = properties(place, isObject(initial) ? initial : {});
    slot.append(...inner.nodes);
  }
  return { ...grouped(place, content, { children }), ...interface_ };
}

function optionLabel(form, branch) {
  const field = classify(form.root, branch);
  const title = ownText(field.schema, "title").trim();
  if (title) return cut(title, 80);
  if (field.kind === "const") return valueText(field.value);
  return form.text(`type.${field.kind}`);
}

export function unionField(place, initial) {
  const { form, field } = place;
  const slot = element("div", { class: "joblib-slot" });
  const labels = field.options.map((branch) => optionLabel(form, branch));
  const names = labels.map((label, index) =>
    labels.indexOf(label) === labels.lastIndexOf(label) ? label : `${label} (${index + 1})`,
  );
  const choices = names.map((label, value) => ({ value, label }));
  let start = initial === undefined || initial === null ? -1 : optionOf(form.root, field.options, initial);
  if (start < 0 && place.required && !field.nullable && place.depth < MAX_CHOSEN_DEPTH) start = 0;
  // The choice has no schema of its own, but the label of the union.
  const chooser = choiceField(
    { ...place, name: "", label: form.text("union.kind"), field: { kind: "choice", schema: {}, nullable: field.nullable, choices } },
    start < 0 ? undefined : start,
  );
  const made = new Map();
  let inner = null;
  const make = (index, value, branch = field.options[index]) =>
    form.build(
      branch,
      { required: true, depth: place.depth + 1, label: names[index] },
      value,
    );
  const show = (index, maker) => {
    if (index >= 0 && !made.has(index)) made.set(index, maker(index));
    inner = index < 0 ? null : made.get(index);
    slot.replaceChildren(...(inner ? [inner.node] : []));
  };
  chooser.control.addEventListener("change", () => {
    const index = chooser.control.value === "" ? -1 : Number(chooser.control.value);
    show(index, () => withinBudget(form, () => make(index), () => make(index, undefined, {})));
    form.changed();
  });
  const value = initial !== null && start >= 0 && fits(classify(form.root, field.options[start]), initial);
  show(start, (index) => make(index, value ? initial : undefined));
  const children = () => [chooser, ...(inner ? [inner] : [])];
  const group = grouped(place, [chooser.node, slot], { children });
  return {
    ...group,
    child: (token) => inner?.child(token) ?? null,
    names: () => inner?.names?.() ?? [],
    get: () => (inner ? inner.get() : emptyValue(place, initial)),
    check() {
      if (inner) return inner.check();
      if (place.required && !field.nullable) return [{ field: chooser, message: form.text("field.required") }];
      return [];
    },
  };
}
