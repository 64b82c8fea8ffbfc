// The result of DistanceHistogram as a chart of bars, with a table.

import { text } from "./texts.js";

const byId = (id) => document.getElementById(id);
const local = (number) => number.toLocaleString(document.documentElement.lang);
let chart = null;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Draws the result of a task: `{counts: [n numbers], edges: [n + 1 numbers]}`. */
export function drawHistogram({ result }) {
  const { counts, edges } = result;
  const middles = counts.map((_, bin) => (edges[bin] + edges[bin + 1]) / 2);
  byId("histogram").hidden = false;
  const element = byId("histogram-chart");
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  chart?.destroy();
  chart = new globalThis.uPlot(
    {
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: [edges[0], edges.at(-1)] }, y: { range: [0, Math.max(1, ...counts) * 1.05] } },
      axes: [
        { ...axis, label: text("axis") },
        { ...axis, label: text("count"), size: 70 },
      ],
      series: [
        {},
        { fill: colour("--accent"), stroke: colour("--accent"), paths: globalThis.uPlot.paths.bars({ size: [0.9, 100] }), points: { show: false } },
      ],
    },
    [middles, counts],
    element,
  );
  const pairs = counts.reduce((sum, count) => sum + count, 0);
  byId("histogram-caption").textContent = text("pairs", { count: local(pairs) });
  byId("histogram-rows").replaceChildren(
    ...counts.map((count, bin) => {
      const row = document.createElement("tr");
      row.insertCell().textContent = text("range", { from: edges[bin].toFixed(1), to: edges[bin + 1].toFixed(1) });
      row.insertCell().textContent = local(count);
      return row;
    }),
  );
}

addEventListener("resize", () => {
  const element = byId("histogram-chart");
  chart?.setSize({ width: element.clientWidth, height: element.clientHeight });
});
