// Reads a JSON Schema as a form needs it: one subschema at a time, because schemas may be recursive.
// Schemas come from workers: nothing here is trusted, and work and depth are bounded.

import { isBigInteger, isObject } from "./json.js";

/** Most steps through `$ref` and `allOf` to read one subschema. */
const MAX_STEPS = 100;

/** The value of a schema's own keyword, because a name like `constructor` is no keyword of it. */
export const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

export const ownText = (schema, name) => {
  const value = own(schema, name);
  return typeof value === "string" ? value : "";
};

const isNumber = (value) => typeof value === "number";

/** The subschema at a reference within the document; undefined for any other reference. */
function target(root, reference) {
  if (typeof reference !== "string" || !/^#(\/|$)/.test(reference)) return undefined;
  let found = root;
  try {
    for (const token of decodeURIComponent(reference.slice(1)).split("/").slice(1)) {
      const name = token.replace(/~1/g, "/").replace(/~0/g, "~");
      if (typeof found !== "object" || found === null || !Object.hasOwn(found, name)) return undefined;
      found = found[name];
    }
  } catch {
    return undefined; // Percent signs that encode nothing.
  }
  return found;
}

/** Limits of which the tighter one holds where two parts of a schema give one each. */
const TIGHTER = {
  minimum: Math.max, exclusiveMinimum: Math.max, minLength: Math.max, minItems: Math.max,
  maximum: Math.min, exclusiveMaximum: Math.min, maxLength: Math.min, maxItems: Math.min,
};

/** The properties of both; one that both declare has to satisfy both. */
function mergedProperties(first, second) {
  const both = Object.entries(second).filter(([name]) => Object.hasOwn(first, name));
  const merged = both.map(([name, subschema]) => [name, { allOf: [first[name], subschema] }]);
  return { ...first, ...second, ...Object.fromEntries(merged) };
}

/** A schema with the keywords of both, which both hold; of texts and defaults the second one's. */
function merged(first, second) {
  const result = { ...first };
  for (const [keyword, value] of Object.entries(second)) {
    // Setting it would give the result another prototype.
    if (keyword === "__proto__") continue;
    const before = own(first, keyword);
    if (keyword === "properties" && isObject(before) && isObject(value)) {
      result.properties = mergedProperties(before, value);
    } else if (keyword === "required" && Array.isArray(before) && Array.isArray(value)) {
      result.required = [...new Set([...before, ...value])];
    } else if (Object.hasOwn(TIGHTER, keyword) && isNumber(before) && isNumber(value)) {
      result[keyword] = TIGHTER[keyword](before, value);
    } else result[keyword] = value;
  }
  return result;
}

/**
 * A subschema with its `$ref` and `allOf` merged into it; keywords beside them win, because
 * pydantic writes a field's own title, description and default there. Null where it cannot be read.
 */
export function resolve(root, schema) {
  let steps = 0;
  const read = (part, within) => {
    if (++steps > MAX_STEPS || within.includes(part)) return null;
    if (part === true) return {};
    if (!isObject(part)) return null;
    const { $ref: reference, allOf, ...rest } = part;
    let result = {};
    const parts = [...(Array.isArray(allOf) ? allOf : [])];
    if (reference !== undefined) parts.unshift(target(root, reference));
    for (const each of parts) {
      const inner = read(each, [...within, part]);
      if (inner === null) return null;
      result = merged(result, inner);
    }
    return merged(result, rest);
  };
  return read(schema, []);
}

const SIMPLE = ["string", "integer", "number", "boolean", "null", "object", "array"];

/** The options of a union: `anyOf`, `oneOf` or a list of types; null for another schema. */
function options(schema) {
  for (const keyword of ["anyOf", "oneOf"]) {
    const { [keyword]: branches, ...rest } = schema;
    if (!Array.isArray(branches) || !branches.length) continue;
    // What holds for all branches belongs to each, but the field's texts and default do not.
    const { title, description, default: _default, discriminator, $defs, definitions, ...shared } = rest;
    const bare = Object.keys(shared).filter((name) => !name.startsWith("$")).length === 0;
    return branches.map((branch) => (bare || !isObject(branch) ? branch : merged(shared, branch)));
  }
  const types = own(schema, "type");
  if (!Array.isArray(types) || !types.length) return null;
  const { title, description, default: _default, ...shared } = schema;
  return types.map((type) => ({ ...shared, type }));
}

const isNull = (schema) => isObject(schema) && (schema.type === "null" || schema.const === null);

/** `oneOf: [{const, title}, ...]` as choices with labels; null for another schema. */
function labelled(branches) {
  const constants = branches.every((each) => isObject(each) && Object.hasOwn(each, "const"));
  return constants
    ? branches.map((each) => ({ value: each.const, label: ownText(each, "title") }))
    : null;
}

/**
 * The kind of field for a subschema: `{kind, schema, nullable, ...}`. `schema` is the resolved one.
 * Kinds: const (`value`), choice (`choices: [{value, label}]`), string, integer, number, boolean,
 * null, object, array, union (`options`), and json where a form has nothing better than its text.
 */
export function classify(root, subschema) {
  const schema = resolve(root, subschema);
  if (schema === null) return { kind: "json", schema: isObject(subschema) ? subschema : {}, nullable: false };
  if (Object.hasOwn(schema, "const")) {
    return { kind: "const", schema, nullable: false, value: schema.const };
  }
  if (Array.isArray(own(schema, "enum")) && schema.enum.length) {
    const nullable = schema.enum.includes(null);
    const choices = schema.enum.filter((value) => value !== null).map((value) => ({ value, label: "" }));
    if (choices.length) return { kind: "choice", schema, nullable, choices };
    return { kind: "const", schema, nullable: false, value: null };
  }
  const branches = options(schema);
  if (branches) {
    const others = branches.filter((branch) => !isNull(branch));
    const nullable = others.length < branches.length;
    const choices = labelled(others);
    if (choices?.length) return { kind: "choice", schema, nullable, choices };
    if (others.length === 1) {
      const inner = classify(root, others[0]);
      const { anyOf, oneOf, type, ...texts } = schema;
      return { ...inner, nullable: nullable || inner.nullable, schema: merged(inner.schema, texts) };
    }
    if (others.length) return { kind: "union", schema, nullable, options: others };
    return { kind: "null", schema, nullable: false };
  }
  let type = own(schema, "type");
  if (type === undefined && isObject(own(schema, "properties"))) type = "object";
  return { kind: SIMPLE.includes(type) ? type : "json", schema, nullable: false };
}

/**
 * Limits of a number: `{low, high, step, excludesLow, excludesHigh}`, null where there is none;
 * `step` null means any.
 */
export function limits({ kind, schema }) {
  const whole = kind === "integer";
  const number = (keyword) => (isNumber(own(schema, keyword)) ? schema[keyword] : null);
  const multiple = number("multipleOf");
  const step = multiple > 0 && (!whole || Number.isInteger(multiple)) ? multiple : whole ? 1 : null;
  const [minimum, above] = [number("minimum"), number("exclusiveMinimum")];
  const [maximum, below] = [number("maximum"), number("exclusiveMaximum")];
  const low = above !== null && (minimum === null || above >= minimum) ? above : minimum;
  const high = below !== null && (maximum === null || below <= maximum) ? below : maximum;
  return {
    low, high, step,
    excludesLow: low !== null && low === above,
    excludesHigh: high !== null && high === below,
  };
}

/** Whether a value has the JSON type of a field's kind, so that the field can show it. */
export function fits(field, value) {
  if (value === null) return field.nullable || field.kind === "null" || field.kind === "json";
  switch (field.kind) {
    case "string":
      return typeof value === "string";
    case "integer":
      return Number.isInteger(value) || isBigInteger(value);
    case "number":
      return isNumber(value) || isBigInteger(value);
    case "boolean":
      return typeof value === "boolean";
    case "object":
      return isObject(value);
    case "array":
      return Array.isArray(value);
    case "const":
      return JSON.stringify(value) === JSON.stringify(field.value);
    case "choice":
      return field.choices.some((each) => JSON.stringify(each.value) === JSON.stringify(value));
    default:
      return field.kind !== "null";
  }
}

/** The default of a field, undefined where there is none or the field cannot show it. */
export function defaultOf(field) {
  const given = own(field.schema, "default");
  // A default of another type, such as null for a number, is the worker's own to apply.
  return given !== undefined && fits(field, given) ? given : undefined;
}

/** The first option of a union that a value seems to belong to; -1 for none. */
export function optionOf(root, branches, value) {
  const score = (branch) => {
    const field = classify(root, branch);
    if (!fits(field, value)) return 0;
    if (field.kind !== "object" || !isObject(value)) return 1;
    const properties = isObject(field.schema.properties) ? field.schema.properties : {};
    let points = 1;
    for (const name of Object.keys(value)) {
      if (!Object.hasOwn(properties, name)) continue;
      const inner = classify(root, properties[name]);
      // A constant tells the option of a discriminated union.
      if (!fits(inner, value[name])) return inner.kind === "const" ? 0 : points;
      points += inner.kind === "const" ? 1000 : 1;
    }
    return points;
  };
  const scores = branches.map(score);
  const best = Math.max(...scores);
  return best > 0 ? scores.indexOf(best) : -1;
}
