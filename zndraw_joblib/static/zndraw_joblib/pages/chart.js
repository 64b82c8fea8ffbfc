// Line and bar charts by uPlot, with a table of the same numbers for screen readers and keyboards.

import { cut, element as h, visible } from "./elements.js";
import { isBigInteger } from "./json.js";
import { pagedTable } from "./tables.js";

const COLORS = 8;
const HEIGHT = 260;
const LABEL_CHARACTERS = 60;
const POINTS = 60;

// uPlot's script stands behind the modules in the page, because few visits need it.
const loaded = new Promise((resolve) => {
  if (window.uPlot || document.readyState === "complete") resolve();
  else window.addEventListener("load", () => resolve(), { once: true });
});

export const toNumber = (value) => (isBigInteger(value) ? Number(JSON.stringify(value)) : value);
export const isNumber = (value) => typeof value === "number" || isBigInteger(value);

const digits = (value) => (value === null ? "" : JSON.stringify(value));

function colorsOf(element) {
  const style = getComputedStyle(element);
  const value = (name) => style.getPropertyValue(name).trim();
  const series = Array.from({ length: COLORS }, (_, index) => value(`--joblib-chart-${index + 1}`));
  return { series, text: style.color, grid: value("--joblib-chart-grid") };
}

/**
 * A figure of series over `x`. `series` is `[{name, values}]`; with `edges`, one more than values,
 * the values are the counts of a histogram.
 */
export function chart({ x, series, edges }, { context, format }) {
  const plot = h("div", { class: "joblib-chart", "aria-hidden": "true" });
  const names = series.map(({ name }) => cut(visible(name), LABEL_CHARACTERS));
  const length = series[0].values.length;
  const label = context.text("chart_of", { names: names.join(", "), count: format.number(length) });
  const position = (row) => (edges ? `${digits(edges[row])} – ${digits(edges[row + 1])}` : digits(x.values[row]));
  const table = h("details", {}, h("summary", {}, context.text("as_table")));
  table.addEventListener("toggle", () => {
    if (table.children.length > 1) return;
    table.append(
      pagedTable({
        label,
        columns: [x.name, ...names],
        count: length,
        cells: (row) => [position(row), ...series.map((one) => digits(one.values[row]))],
        context,
        format,
        numeric: true,
      }),
    );
  });
  draw(plot, { x, series, edges, names });
  return h("figure", { class: "joblib-figure" }, h("figcaption", {}, label), plot, table);
}

function histogramScales(edges) {
  const ends = [toNumber(edges[0]), toNumber(edges.at(-1))];
  // Bars begin at zero.
  const range = (_, least, most) => [Math.min(0, least), most * 1.05 || 1];
  return { x: { time: false, range: ends }, y: { range } };
}

async function draw(element, { x, series, edges, names }) {
  await loaded;
  // A host may leave the script out; the table remains.
  if (!window.uPlot) return;
  const middles = edges?.slice(0, -1).map((edge, index) => (toNumber(edge) + toNumber(edges[index + 1])) / 2);
  const data = [middles ?? x.values.map(toNumber), ...series.map(({ values }) => values.map(toNumber))];
  let plot = null;

  function make(width) {
    plot?.destroy();
    const colors = colorsOf(element);
    const axis = { stroke: colors.text, grid: { stroke: colors.grid }, ticks: { stroke: colors.grid } };
    const options = {
      width,
      height: HEIGHT,
      legend: { show: series.length > 1 },
      scales: edges ? histogramScales(edges) : { x: { time: false } },
      axes: [axis, { ...axis, size: 70 }],
      series: [
        { label: x.name },
        ...names.map((name, index) => {
          const stroke = colors.series[index % COLORS];
          const bars = edges && { paths: window.uPlot.paths.bars({ size: [0.96, Infinity] }), fill: stroke };
          return { label: name, stroke, width: 1.5, points: { show: !edges && data[0].length <= POINTS }, ...bars };
        }),
      ],
    };
    plot = new window.uPlot(options, data, element);
  }

  const sizes = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (!element.isConnected) sizes.disconnect();
    else if (width && !plot) make(width);
    else if (width && plot.width !== width) plot.setSize({ width, height: HEIGHT });
  });
  sizes.observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (element.isConnected && plot) make(plot.width);
  });
}
