// The jobs of the room by category, and the form of the chosen one.

import { Problem } from "./api.js";
import { element, visible } from "./elements.js";
import { createForm } from "./form.js";

/** Milliseconds between two looks at the list on a page without events, whose tasks a site left out. */
const POLL = 10_000;
/** Most pages of 500 jobs that are loaded. */
const MAX_PAGES = 10;

const byName = (one, other) => one.name.localeCompare(other.name) || one.full_name.localeCompare(other.full_name);

/** Starts the section; `context` as room.js makes it. */
export function startJobs(section, context) {
  const { api, text } = context;
  const jobs = new Map();
  // Forms by the job's name, because what somebody typed waits while they look at another job.
  const forms = new Map();
  let chosen = null; // {name, form}, form null until it is loaded
  let loading = null;
  let live = false;
  // Changes of jobs that arrive while the list is read, because the answer may be older than they are.
  let meanwhile = null;

  const search = element("input", {
    type: "search", class: "joblib-search", "aria-label": text("jobs.search"),
    placeholder: text("jobs.search"), autocomplete: "off", spellcheck: "false",
  });
  const list = element("nav", { class: "joblib-job-list", "aria-label": text("jobs.list") });
  const message = element("p", { class: "joblib-help", role: "status" }, text("jobs.loading"));
  const panel = element("div", { class: "joblib-form-panel" });
  section.append(search, message, list, panel);
  search.addEventListener("input", render);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    search.value = "";
    render();
  });

  async function load() {
    const found = new Map();
    const changes = (meanwhile = []);
    let path = api.url(`${context.roomPath}/jobs`, { limit: 500 });
    try {
      for (let page = 0; path && page < MAX_PAGES; page++) {
        const { data, headers } = await api.get(path);
        for (const job of data) found.set(job.full_name, job);
        path = api.nextPage(headers);
      }
    } catch (error) {
      if (meanwhile === changes) meanwhile = null;
      if (!jobs.size) message.textContent = text("jobs.failed");
      // The status of the connection is told by the part that receives events.
      if (!(error instanceof Problem) && error.name !== "NetworkError") throw error;
      return;
    }
    // Read again meanwhile, after a `reset`.
    if (meanwhile !== changes) return;
    meanwhile = null;
    jobs.clear();
    for (const [name, job] of found) jobs.set(name, job);
    for (const act of changes) act();
    render();
    if (!chosen && jobs.size === 1 && !context.parameters().has("job")) {
      const [only] = jobs.keys();
      choose(only, { focus: false });
      // In the address, because the form has to stay when a task is opened.
      context.setAddress({ job: only }, { replace: true });
    }
  }

  function entry(job) {
    const link = element("a", { href: `?job=${encodeURIComponent(job.full_name)}`, class: "joblib-job" },
      element("span", {}, visible(job.name)),
      job.full_name.startsWith("@global:") && context.roomId !== "@global"
        ? element("small", { title: text("jobs.everywhere") }, "@global")
        : null,
      job.worker_count ? null : element("small", { class: "joblib-warning" }, text("jobs.noWorkers")),
    );
    if (chosen?.name === job.full_name) link.setAttribute("aria-current", "true");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      context.setAddress({ job: job.full_name });
      if (chosen?.name === job.full_name) chosen.form?.focus();
      else choose(job.full_name); // Its earlier choice failed, and the address is the same.
    });
    return element("li", {}, link);
  }

  function render() {
    const wanted = search.value.trim().toLowerCase();
    const shown = [...jobs.values()]
      .filter((job) => `${job.category} ${job.name}`.toLowerCase().includes(wanted))
      .sort(byName);
    const categories = Map.groupBy
      ? Map.groupBy(shown, (job) => job.category)
      : shown.reduce((map, job) => map.set(job.category, [...(map.get(job.category) ?? []), job]), new Map());
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    list.replaceChildren(
      ...[...categories].sort(([one], [other]) => one.localeCompare(other)).flatMap(([category, members]) => [
        element("h3", { class: "joblib-category" }, category),
        element("ul", {}, members.map(entry)),
      ]),
    );
    // The list was made anew beneath the focus.
    if (focused) [...list.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    search.hidden = jobs.size < 2;
    message.textContent = !jobs.size ? text("jobs.none") : shown.length ? "" : text("jobs.noMatch");
    notice();
  }

  function notice() {
    if (!chosen?.form) return;
    const job = jobs.get(chosen.name);
    if (!job) chosen.form.setNotice(text("job.retired"));
    else chosen.form.setNotice(job.worker_count ? null : text("job.noWorkers"));
  }

  /** The form that was shown before, unless another schema took over since. */
  function formOf(job) {
    const schema = JSON.stringify(job.schema);
    if (forms.get(job.full_name)?.schema !== schema) {
      forms.set(job.full_name, { schema, form: createForm(context, job) });
    }
    return forms.get(job.full_name).form;
  }

  async function choose(name, { focus = true } = {}) {
    if (chosen?.name === name) return;
    loading?.abort();
    chosen = name === null ? null : { name, form: null };
    panel.replaceChildren();
    render();
    if (name === null) return;
    loading = new AbortController();
    const path = `${context.roomPath}/jobs/${encodeURIComponent(name)}`;
    const own = chosen;
    panel.setAttribute("aria-busy", "true");
    try {
      const { data: job } = await api.get(path, { signal: loading.signal, exact: true });
      if (chosen !== own) return;
      own.form = formOf(job);
      panel.replaceChildren(own.form.node);
      notice();
      if (focus) own.form.focus();
    } catch (error) {
      if (error.name === "AbortError") return;
      const key = error.status === 404 ? "refused.gone" : "jobs.failed";
      panel.replaceChildren(element("p", { class: "joblib-notice", role: "alert" }, text(key)));
      // The next choice of the same job tries again.
      if (chosen === own) chosen = null;
    } finally {
      panel.removeAttribute("aria-busy");
    }
  }

  context.onAddress((parameters) => choose(parameters.get("job")));
  /** Changes the jobs by an event. */
  function change(act) {
    meanwhile?.push(act);
    act();
    render();
  }

  context.onEvent("job", ({ job }) =>
    change(() => jobs.set(job.full_name, { ...jobs.get(job.full_name), ...job })),
  );
  context.onEvent("job_retired", ({ job }) => change(() => jobs.delete(job.full_name)));
  context.onEvent("reset", () => {
    live = true;
    load();
  });
  setInterval(() => {
    if (!live && !document.hidden) load();
  }, POLL);
  load();
  const asked = context.parameters().get("job");
  if (asked) choose(asked, { focus: false });
}
