/* Draws the charts of the dashboard, and loads its numbers again every few seconds. */
"use strict";

(() => {
  const page = document.getElementById("joblib-dashboard");
  const stale = document.getElementById("joblib-stale");
  let data = JSON.parse(document.getElementById("joblib-charts").textContent);
  let plots = [];
  let loadedAt = new Date();

  const color = (name) => getComputedStyle(page).getPropertyValue(name).trim();

  const duration = (seconds) => {
    if (seconds === null || seconds === undefined) return "-";
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
    if (seconds < 3600) return `${Number((seconds / 60).toPrecision(2))} min`;
    return `${Number((seconds / 3600).toPrecision(2))} h`;
  };

  const options = (chart, width) => {
    const foreground = color("--body-quiet-color");
    const axis = { stroke: foreground, grid: { stroke: color("--hairline-color") }, ticks: { show: false } };
    const shown = (value) => (chart.seconds ? duration(value) : value === null ? "-" : String(value));
    return {
      width,
      height: 220,
      // The last label stands half beyond the end of its axis.
      padding: [null, 32, null, null],
      scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, space: 75, values: (_plot, times) => times.map(clock) },
        { ...axis, size: 60, values: (_plot, values) => values.map(shown) },
      ],
      series: [
        { label: page.dataset.time, value: (_plot, time) => (time === null ? "-" : new Date(time * 1000).toLocaleString(language())) },
        ...chart.series.map((series) => ({
          label: series.label,
          stroke: color(`--joblib-${series.name}`),
          width: 2,
          points: { size: 5 },
          value: (_plot, value) => shown(value),
        })),
      ],
    };
  };

  const language = () => document.documentElement.lang || undefined;

  const clock = (time) => {
    const span = data.times[data.times.length - 1] - data.times[0];
    const format = span > 86400 ? { month: "numeric", day: "numeric" } : { hour: "2-digit", minute: "2-digit" };
    return new Date(time * 1000).toLocaleString(language(), format);
  };

  const columns = (chart) => [data.times, ...chart.series.map((series) => series.values)];

  const draw = () => {
    plots.forEach((plot) => plot.destroy());
    plots = data.charts.map((chart) => {
      const place = page.querySelector(`[data-chart="${chart.key}"] > div`);
      return new uPlot(options(chart, place.clientWidth), columns(chart), place);
    });
  };

  const resize = () => {
    plots.forEach((plot) => {
      const width = plot.root.parentElement.clientWidth;
      if (width !== plot.width) plot.setSize({ width, height: 220 });
    });
  };

  /* Replaces a part of the page, and keeps what is open, scrolled and focused in it. */
  const replace = (part, html) => {
    const open = [...part.querySelectorAll("details[open]")].map((each) => each.id);
    const scrolled = [...part.querySelectorAll(".joblib-scroll")].map((each) => [each.id, each.scrollTop, each.scrollLeft]);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const focusable = "a, summary, [tabindex]";
    const key = (element) => element.id || element.getAttribute("href") || element.localName;
    const same = focused && [...part.querySelectorAll(focusable)].filter((each) => key(each) === key(focused)).indexOf(focused);
    part.innerHTML = html;
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    scrolled.forEach(([id, top, left]) => document.getElementById(id)?.scrollTo(left, top));
    if (focused) {
      const found = [...part.querySelectorAll(focusable)].filter((each) => key(each) === key(focused));
      (found[same] || found[0])?.focus({ preventScroll: true });
    }
  };

  const say = (text) => {
    const shown = text ? `${text} ${loadedAt.toLocaleTimeString(language())}.` : "";
    // Compared, because a screen reader reads a text that is set again.
    if (stale.textContent !== shown) stale.textContent = shown;
    stale.hidden = !shown;
  };

  const load = async () => {
    if (document.hidden || String(document.getSelection())) return;
    let answer;
    try {
      answer = await fetch(page.dataset.url, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(10000) });
      if (answer.ok && !answer.redirected) {
        const loaded = await answer.json();
        data = loaded.charts;
        for (const [name, html] of Object.entries(loaded.parts)) replace(page.querySelector(`[data-part="${name}"]`), html);
        plots.forEach((plot, index) => plot.setData(columns(data.charts[index])));
        loadedAt = new Date();
        say("");
        return;
      }
    } catch {
      answer = null;
    }
    const refused = answer && (answer.redirected || answer.status === 403 || answer.status === 404);
    say(refused ? page.dataset.refused : page.dataset.failed);
  };

  const again = async () => {
    await load();
    setTimeout(again, Number(page.dataset.seconds) * 1000);
  };

  draw();
  new ResizeObserver(resize).observe(page);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("visibilitychange", load);
  setTimeout(again, Number(page.dataset.seconds) * 1000);
})();
