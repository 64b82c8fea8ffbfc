// The tasks of the room: a live list, or one task. The address has the filters, the page and the task.

import { element as h, setShown, visible } from "./elements.js";
import { startEvents } from "./events.js";
import { createFormat } from "./format.js";
import { TaskList } from "./list.js";
import { TaskDetail } from "./task.js";

const PAGE_SIZE = 25;
// Pages of jobs whose names are suggested in the search.
const MOST_JOB_PAGES = 10;
// The list grows by new tasks up to this number, and is then read again.
const MOST_ROWS = 100;
// The list is read without the first event if none comes in this time.
const FIRST_READ_MILLISECONDS = 700;
const MOST_SUGGESTIONS = 8;

export function startTasks(section, context) {
  const format = createFormat(context);
  const find = (name) => section.querySelector(`[data-joblib="${name}"]`);
  const [view, notice, search, status, suggestions, newer, older] = [
    ...["list-view", "list-notice", "search", "status", "suggestions", "newer", "older"],
  ].map(find);
  const jobs = new Set();
  // The cursors of the pages that the reader came from, by cursor.
  const pagesBefore = new Map();
  let shown = null;
  let nextCursor = null;
  let reading = null;
  // Changes that arrive while the list is read, because the answer may be older than they are.
  let meanwhile = null;
  // Whether the last read of the list got no answer.
  let isStale = false;

  function filters(parameters = context.parameters()) {
    return {
      job: parameters.get("of") || null,
      status: parameters.get("status") || null,
      cursor: parameters.get("cursor") || null,
    };
  }

  const list = new TaskList({
    element: find("list"),
    button: find("new"),
    context,
    format,
    most: MOST_ROWS,
    matches: (task) =>
      (shown.job === null || task.job_name === shown.job) &&
      (shown.status === null || task.status === shown.status),
    onFull: () => read({ again: true }),
  });

  function listUrl({ job, status, cursor }, limit) {
    const { roomPath, api } = context;
    const path = job ? `${roomPath}/jobs/${encodeURIComponent(job)}/tasks` : `${roomPath}/tasks`;
    return api.url(path, { status, cursor, limit: Math.min(limit, context.maxPageSize) });
  }

  async function suggestJobs() {
    let path = `${context.roomPath}/jobs`;
    for (let page = 0; path && page < MOST_JOB_PAGES; page += 1) {
      const { data, headers } = await context.api.get(path);
      for (const job of data) suggest(job.full_name);
      path = context.api.nextPage(headers);
    }
  }

  /** Reads the list; `again` keeps the rows at their places while the reader points at them. */
  async function read({ again = false } = {}) {
    reading?.abort();
    const mine = (reading = new AbortController());
    const wanted = filters();
    meanwhile = new Map();
    section.setAttribute("aria-busy", "true");
    try {
      const { signal } = mine;
      const [answer, first] = await Promise.all([
        context.api.get(listUrl(wanted, PAGE_SIZE), { signal }),
        // Tells which tasks are new while somebody reads another page than the first.
        wanted.cursor && context.api.get(listUrl({ ...wanted, cursor: null }, PAGE_SIZE), { signal }),
      ]);
      isStale = false;
      format.setClock(answer.headers);
      const next = context.api.nextPage(answer.headers);
      nextCursor = next && new URL(next, location.href).searchParams.get("cursor");
      shown = wanted;
      list.setPage({
        isFirst: wanted.cursor === null,
        isLast: nextCursor === null,
        newestTasks: first ? first.data : answer.data,
        again,
      });
      showPage(answer.data, again);
    } catch (error) {
      if (error.name === "AbortError") return;
      refuse(error);
    } finally {
      if (reading === mine) {
        reading = null;
        section.removeAttribute("aria-busy");
        // The rows may be older than these.
        for (const task of meanwhile.values()) list.change(task);
        meanwhile = null;
      }
    }
  }

  function showPage(tasks, again) {
    if (again) list.merge(tasks);
    else list.replace(tasks);
    for (const task of tasks) suggest(task.job_name);
    setShown(older, nextCursor !== null);
    setShown(newer, shown.cursor !== null);
    const isFiltered = shown.job !== null || shown.status !== null;
    tell(list.rows.size || list.waiting.size ? "" : context.text(isFiltered ? "none_found" : "no_tasks"));
  }

  function refuse(error) {
    isStale = error.name === "NetworkError";
    // A cursor that somebody changed in the address.
    if (error.status === 400 && filters().cursor) {
      context.setAddress({ cursor: null }, { replace: true });
      return;
    }
    shown ??= filters();
    if (error.status === 404 && filters().job) {
      list.replace([]);
      setShown(older, false);
      setShown(newer, false);
      tell(context.text("no_job", { name: visible(filters().job) }));
    } else if (error.name !== "NetworkError" && error.status !== 401) tell(error.message);
  }

  function tell(...content) {
    notice.replaceChildren(...content);
    setShown(notice, content.some(Boolean));
  }

  function suggest(name) {
    if (jobs.has(name)) return;
    jobs.add(name);
    suggestions.append(h("option", { value: name }));
  }

  const goTo = (changes) => context.setAddress({ cursor: null, task: null, ...changes });

  /** Filters by the job that the reader typed: its name, or a part that only one name has. */
  function searchJob() {
    const typed = search.value.trim();
    if (!typed || jobs.has(typed)) {
      goTo({ of: typed || null });
      return;
    }
    const lower = typed.toLowerCase();
    const found = [...jobs].filter((name) => name.toLowerCase().includes(lower));
    if (found.length < 2) {
      goTo({ of: found[0] ?? typed });
      return;
    }
    const buttons = found
      .slice(0, MOST_SUGGESTIONS)
      .map((name) => h("button", { type: "button", onclick: () => goTo({ of: name }) }, visible(name)));
    tell(format.plural("jobs_match", found.length), h("span", { class: "joblib-choices" }, buttons));
  }

  const detail = new TaskDetail({
    element: find("detail"),
    context,
    format,
    back: () => context.setAddress({ task: null }),
  });

  function follow(parameters) {
    const wanted = filters(parameters);
    search.value = wanted.job ?? "";
    status.value = wanted.status ?? "";
    const id = parameters.get("task");
    setShown(view, !id);
    const opened = detail.id;
    detail.open(id);
    if (opened && !id) {
      const row = list.rows.get(opened);
      (row?.link ?? view.querySelector("h2, h3, input"))?.focus({ focusVisible: false });
    }
    const isSame = shown && ["job", "status", "cursor"].every((name) => shown[name] === wanted[name]);
    if (isSame) list.link();
    else read();
  }

  search.addEventListener("change", searchJob);
  status.addEventListener("change", () => goTo({ status: status.value || null }));
  find("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    searchJob();
  });
  older.addEventListener("click", () => {
    pagesBefore.set(nextCursor, shown.cursor);
    context.setAddress({ cursor: nextCursor });
    view.scrollIntoView({ block: "start" });
  });
  newer.addEventListener("click", () => {
    context.setAddress({ cursor: pagesBefore.get(shown.cursor) ?? null });
  });
  list.button.addEventListener("click", () => {
    if (!list.isFirstPage) goTo({});
    else list.apply();
    list.element.focus({ preventScroll: true });
    view.scrollIntoView({ block: "nearest" });
  });
  list.element.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    context.setAddress({ task: link.closest("[data-task]").dataset.task });
  });

  context.onAddress(follow);
  context.onEvent("task", ({ task }) => {
    meanwhile?.set(task.id, task);
    if (shown) list.change(task);
    if (list.rows.size === 0) setShown(notice, false);
    detail.change(task);
  });
  context.onEvent("job", ({ job }) => suggest(job.full_name));
  context.onEvent("ready", () => {
    if (isStale) read({ again: shown !== null });
    detail.resume();
  });
  context.onEvent("reset", () => {
    clearTimeout(first);
    read({ again: shown !== null });
    detail.reload();
  });
  const first = setTimeout(read, FIRST_READ_MILLISECONDS);
  const parameters = context.parameters();
  search.value = filters().job ?? "";
  status.value = filters().status ?? "";
  setShown(view, !parameters.get("task"));
  detail.open(parameters.get("task"), { focus: false });
  // Without the suggestions the search still takes a whole name.
  suggestJobs().catch(() => {});
  setInterval(() => {
    if (document.hidden) return;
    list.tick();
    detail.tick();
  }, 1000);
  startEvents(context, find("connection"));
}
