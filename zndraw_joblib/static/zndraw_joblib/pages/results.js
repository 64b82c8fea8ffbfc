// A JSON value of a task, its result or its payload, in the form that suits it.

import { chart, isNumber, toNumber } from "./chart.js";
import { cut, download, element as h, visible } from "./elements.js";
import { isBigInteger, isObject } from "./json.js";
import { pagedTable } from "./tables.js";

const MOST_CHARACTERS = 20_000;
const CELL_CHARACTERS = 200;
const MOST_COLUMNS = 40;
const MOST_SERIES = 16;
const MOST_PARTS = 16;
// Names under which programs write the positions of their values.
const POSITIONS = ["x", "t", "time", "step", "steps", "frame", "index", "epoch"];

const isSeries = (value) =>
  Array.isArray(value) &&
  value.length > 1 &&
  value.some(isNumber) &&
  value.every((entry) => entry === null || isNumber(entry));
const isShortArray = (row) =>
  Array.isArray(row) && row.length > 0 && row.length <= MOST_COLUMNS && !row.some(isObject);
const isObjects = (value) =>
  Array.isArray(value) && value.length > 0 && value.every((row) => isObject(row) && Object.keys(row).length);
const isMatrix = (value) => Array.isArray(value) && value.length > 0 && value.every(isShortArray);
const rises = (values) =>
  values.every((value, index) => isNumber(value) && (index === 0 || toNumber(value) > toNumber(values[index - 1])));
const positions = (length) => Array.from({ length }, (_, index) => index);

/** The chart of an object of equally long arrays of numbers, or of a histogram; null for another. */
function chartOf(value, context) {
  const entries = Object.entries(value);
  if (!entries.length || entries.length > MOST_SERIES) return null;
  if (!entries.every(([, values]) => isSeries(values))) return null;
  const lengths = entries.map(([, values]) => values.length);
  const shortest = Math.min(...lengths);
  const series = (chosen) => chosen.map(([name, values]) => ({ name, values }));
  const index = { name: context.text("index"), values: positions(shortest) };
  if (lengths.every((length) => length === shortest)) {
    const x = entries.length > 1 && entries.find(([name, values]) => POSITIONS.includes(name.toLowerCase()) && rises(values));
    if (!x) return { x: index, series: series(entries) };
    return { x: { name: x[0], values: x[1] }, series: series(entries.filter((entry) => entry !== x)) };
  }
  // One array that is longer by one has the edges of bins.
  const longer = entries.filter(([, values]) => values.length === shortest + 1 && rises(values));
  if (longer.length !== 1 || lengths.filter((length) => length === shortest).length !== lengths.length - 1) return null;
  const counts = entries.filter((entry) => entry !== longer[0]);
  return { x: { ...index, name: longer[0][0] }, series: series(counts), edges: longer[0][1] };
}

/** Indented JSON, with arrays of plain values in one line. */
function jsonText(value) {
  const oneLine = (match, inner) => `[${inner.replace(/\n\s*/g, " ")}]`;
  return JSON.stringify(value, null, 2).replace(/\[\n\s*(?=\S)([^[\]{}]*?)\n\s*\]/g, oneLine);
}

function cellText(value) {
  if (value === undefined) return "";
  return cut(typeof value === "string" ? value : JSON.stringify(value), CELL_CHARACTERS);
}

function objectTable(rows, label, { context, format }) {
  const names = [];
  const known = new Set();
  for (const row of rows) {
    for (const name of Object.keys(row)) {
      if (!known.has(name)) names.push(name);
      known.add(name);
    }
  }
  const columns = names.slice(0, MOST_COLUMNS);
  const table = pagedTable({
    label,
    columns: columns.map((name) => cut(visible(name), CELL_CHARACTERS)),
    count: rows.length,
    cells: (index) => columns.map((name) => cellText(Object.hasOwn(rows[index], name) ? rows[index][name] : undefined)),
    context,
    format,
    numeric: columns.every((name) => isNumber(rows[0][name])),
  });
  if (names.length > columns.length) {
    table.append(h("p", {}, format.plural("more_columns", names.length - columns.length)));
  }
  return table;
}

/** An array of short arrays: a table whose columns have no names. */
function matrixTable(rows, label, { context, format }) {
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  return pagedTable({
    label,
    columns: positions(width).map((index) => format.number(index)),
    count: rows.length,
    cells: (index) => positions(width).map((column) => cellText(rows[index][column])),
    context,
    format,
    numeric: rows[0].every(isNumber),
  });
}

function plainText(text, { context, format }) {
  const isCut = text.length > MOST_CHARACTERS;
  const pre = h("pre", { class: "joblib-text", tabindex: 0, dir: "auto" }, cut(text, MOST_CHARACTERS));
  if (!isCut) return pre;
  const values = { shown: format.number(MOST_CHARACTERS), count: format.number(text.length) };
  return h("div", {}, pre, h("p", { class: "joblib-more" }, context.text("text_cut", values)));
}

/**
 * The element that shows a value. `name` is the beginning of the name of its download; `label` names it
 * for screen readers.
 */
export function valueElement(value, { name, label, context, format }) {
  const tools = { context, format };
  if (value === null) return h("p", { class: "joblib-none" }, "null");
  if (typeof value === "string") {
    const shown = plainText(value, tools);
    return value.length > MOST_CHARACTERS ? withDownload(shown, value, `${name}.txt`, "text/plain", context) : shown;
  }
  if (typeof value !== "object" || isBigInteger(value)) {
    return h("p", { class: "joblib-value" }, JSON.stringify(value));
  }
  const text = jsonText(value);
  const element = structured(value, text, label, tools);
  return withDownload(element, text, `${name}.json`, "application/json", context);
}

function structured(value, text, label, tools) {
  if (isSeries(value)) {
    const x = { name: tools.context.text("index"), values: positions(value.length) };
    return chart({ x, series: [{ name: label, values: value }] }, tools);
  }
  if (isObjects(value)) return objectTable(value, label, tools);
  if (isMatrix(value)) return matrixTable(value, label, tools);
  const series = isObject(value) ? chartOf(value, tools.context) : null;
  if (series) return chart(series, tools);
  return (isObject(value) && parts(value, tools)) || plainText(text, tools);
}

/** The parts of an object that have a chart or table, below all its others; null where none has. */
function parts(value, tools) {
  const entries = Object.entries(value);
  const hasOwnForm = ([, part]) => isSeries(part) || isObjects(part) || isMatrix(part) || (isObject(part) && chartOf(part, tools.context));
  const shown = entries.filter(hasOwnForm);
  if (!shown.length || entries.length > MOST_PARTS) return null;
  const others = entries.filter((entry) => !shown.includes(entry));
  const together = chartOf(Object.fromEntries(shown), tools.context);
  const text = (part) => plainText(jsonText(part), tools);
  return h(
    "div", {},
    others.length ? text(Object.fromEntries(others)) : null,
    together
      ? chart(together, tools)
      : shown.map(([name, part]) => {
        const label = cut(visible(name), CELL_CHARACTERS);
        return [h("h5", {}, label), structured(part, "", label, tools)];
      }).flat(),
  );
}

function withDownload(element, text, fileName, type, context) {
  const button = h("button", { type: "button", class: "joblib-small", onclick: () => download(text, fileName, type) }, context.text("download"));
  return h("div", { class: "joblib-result" }, element, h("p", {}, button));
}
