// Makes the fields of a job's form from its JSON Schema.

import { Budget, placeOf, TooLarge } from "./field.js";
import { objectField, unionField } from "./groups.js";
import { isObject } from "./json.js";
import { arrayField, hasTooMany } from "./lists.js";
import { classify, defaultOf, fits, own } from "./schema.js";
import { booleanField, choiceField, constField, jsonField, numberField, stringField } from "./values.js";

/** Deeper than this, a part of the payload is edited as text. */
const MAX_DEPTH = 10;

const MAKERS = {
  string: stringField,
  integer: numberField,
  number: numberField,
  boolean: booleanField,
  null: constField,
  const: constField,
  choice: choiceField,
  object: objectField,
  array: arrayField,
  union: unionField,
  json: jsonField,
};

const hasOwnTitle = (subschema) => isObject(subschema) && own(subschema, "title") !== undefined;
const untitled = ({ title, ...rest }) => rest;

/**
 * The field of a payload, for a schema and the value to begin with; null where a form cannot show
 * it, because the schema is too large or its payload's form is unknown. `changed` is called after
 * each change.
 */
export function payloadField(schema, initial, { text, changed }) {
  const form = {
    root: schema,
    text,
    changed,
    budget: new Budget(),
    build(subschema, options, value) {
      let field = classify(schema, subschema);
      // The title of a model says less of a property than its name: `first: Atom`, `second: Atom`.
      if (options.name && !hasOwnTitle(subschema)) field = { ...field, schema: untitled(field.schema) };
      let start = value;
      if (start === undefined) start = defaultOf(field);
      else if (!fits(field, start)) field = { ...field, kind: "json" };
      if (options.depth > MAX_DEPTH || hasTooMany(start)) field = { ...field, kind: "json" };
      return MAKERS[field.kind](placeOf(form, field, options), start);
    },
  };
  const field = classify(schema, schema);
  if (field.kind !== "object") {
    // Payloads are objects: a schema of no type at all takes any of them.
    if (field.kind !== "union") return null;
  }
  const start = initial === undefined ? own(field.schema, "default") : initial;
  try {
    if (field.kind === "union") {
      return unionField(placeOf(form, field, { required: true, label: text("form.payload") }), start);
    }
    if (start !== undefined && (!isObject(start) || hasTooMany(start))) return null;
    return objectField(placeOf(form, field, { required: true }), start, { bare: true });
  } catch (error) {
    // A page must not fail at a schema that nobody thought of.
    if (!(error instanceof TooLarge)) console.warn(error);
    return null;
  }
}
