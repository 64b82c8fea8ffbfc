// One task: its state, payload, result, files, log and attempts; cancel and retry.

import { TaskActions } from "./actions.js";
import { attemptsTable } from "./attempts.js";
import { element as h, setShown, setText, visible } from "./elements.js";
import { FileList } from "./files.js";
import { ENDED, badge, isScheduled, setStatus } from "./format.js";
import { Log } from "./log.js";
import { valueElement } from "./results.js";
import { jobName } from "./row.js";

// Files and attempts are read again at most this often while a task runs.
const REREAD_MILLISECONDS = 4_000;

export class TaskDetail {
  /** `element` is shown while a task is open; `back()` returns to the list. */
  constructor({ element, context, format, back }) {
    Object.assign(this, { element, context, format, back });
    this.id = this.task = this.view = null;
    this.isStale = false;
  }

  /** Shows the task of an id, or hides the view for null; `focus` moves the focus there. */
  open(id, { focus = true } = {}) {
    if (id === this.id) return;
    this.close();
    this.id = id;
    setShown(this.element, Boolean(id));
    if (!id) return;
    this.controller = new AbortController();
    this.build();
    if (focus) this.view.title.focus({ preventScroll: true, focusVisible: false });
    const { top } = this.element.getBoundingClientRect();
    if (top < 0 || top > window.innerHeight / 2) this.element.scrollIntoView({ block: "start" });
    this.reload();
  }

  close() {
    this.controller?.abort();
    this.log?.close();
    clearTimeout(this.rereadTimer);
    this.rereadTimer = null;
    this.element.replaceChildren();
    this.task = this.view = this.log = null;
    this.shownEnd = null;
  }

  part(key) {
    const body = h("div");
    const element = h("section", { hidden: true }, h("h4", {}, this.context.text(key)), body);
    return { element, body };
  }

  build() {
    const { context, format } = this;
    const text = (key) => context.text(key);
    const view = (this.view = {
      title: h("h3", { tabindex: -1 }, text("loading")),
      status: badge(),
      time: h("span"),
      notice: h("p", { role: "alert", class: "joblib-refusal", hidden: true }),
      bar: h("progress", { max: 1, "aria-label": text("progress") }),
      percent: h("span"),
      message: h("p", { class: "joblib-message", dir: "auto" }),
      facts: h("dl", { class: "joblib-facts" }),
    });
    for (const key of ["error", "result", "files", "log", "payload", "attempts"]) view[key] = this.part(key);
    view.progress = h("p", { class: "joblib-progress", hidden: true }, view.bar, view.percent);
    const list = h("ul", { class: "joblib-files" });
    view.files.body.append(list);
    this.files = new FileList(list, { context, format });
    this.actions = new TaskActions({
      context,
      onTask: (task) => this.change(task),
      onRetry: (task) => context.setAddress({ task: task.id }),
      onRefusal: (message) => this.refuse(message),
    });
    const back = h("button", { type: "button", class: "joblib-back", onclick: this.back }, text("back"));
    this.element.append(
      h("p", {}, back),
      view.title,
      h("p", { class: "joblib-state" }, view.status, " ", view.time),
      view.notice,
      view.progress,
      view.message,
      this.actions.element,
      view.facts,
      ...["error", "result", "files", "log", "payload", "attempts"].map((key) => view[key].element),
    );  }

  refuse(message) {
    setText(this.view.notice, message ?? "");
    setShown(this.view.notice, Boolean(message));
  }

  /** Reads the task from the server. */
  async reload() {
    const { id, context } = this;
    if (!id) return;
    const { signal } = this.controller;
    this.meanwhile = null;
    try {
      const answer = await context.api.get(["tasks", id], { signal, exact: true });
      this.isStale = false;
      this.format.setClock(answer.headers);
      if (answer.data.room_id !== context.roomId) this.missing();
      else this.show(answer.data, true);
      // The answer may be older than this event.
      if (this.meanwhile && !ENDED.has(answer.data.status)) this.change(this.meanwhile);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.isStale = error.name === "NetworkError";
      if ([400, 404].includes(error.status)) this.missing();
      else if (error.name !== "NetworkError" && error.status !== 401) this.refuse(error.message);
    }
  }

  /** Reads the task again if the last read got no answer. */
  resume() {
    if (this.isStale) this.reload();
  }

  missing() {
    setText(this.view.title, this.context.text("no_task"));
    setShown(this.actions.element, false);
  }

  /** Takes over an event of a task, which has neither payload nor result. */
  change(task) {
    if (task.id !== this.id) return;
    this.meanwhile = task;
    if (this.task) this.show({ queue_position: undefined, ...task }, false);
  }

  show(changes, isWhole) {
    const before = this.task;
    const task = (this.task = { ...before, ...changes });
    const { view, context } = this;
    if (!before) this.showOnce(task);
    setStatus(view.status, task, context, this.format);
    const fraction = task.status === "running" ? task.progress : null;
    setShown(view.progress, fraction !== null);
    if (fraction !== null) {
      view.bar.value = fraction;
      setText(view.percent, this.format.percent(fraction));
    }
    // The message of a pending task is that of its last attempt.
    const message = (task.status === "pending" ? null : task.message) ?? "";
    setText(view.message, message);
    setShown(view.message, message !== "");
    this.showFacts(task);
    this.showError(task);
    this.actions.show(task);
    this.tick();
    const hasEnded = ENDED.has(task.status);
    if (hasEnded && isWhole) this.showResult(task);
    else if (hasEnded && this.shownEnd !== task.id) this.reload();
    if (isWhole || hasEnded !== ENDED.has(before?.status) || task.attempt !== before?.attempt) this.reread();
    else if (!hasEnded) this.rereadTimer ??= setTimeout(() => this.reread(), REREAD_MILLISECONDS);
  }

  /** Shows all that stays the same for the life of a task. */
  showOnce(task) {
    const { view, context, format } = this;
    view.title.replaceChildren(...jobName(task.job_name));
    const label = context.text("payload");
    view.payload.body.append(valueElement(task.payload, { name: `payload-${task.id}`, label, context, format }));
    setShown(view.payload.element, true);
    this.log = new Log({ taskId: task.id, context, onText: () => setShown(view.log.element, true) });
    view.log.body.append(this.log.element);
  }

  showResult(task) {
    if (this.shownEnd === task.id) return;
    this.shownEnd = task.id;
    const { view, context, format } = this;
    if (task.status !== "completed" || task.result === undefined || task.result === null) return;
    setShown(view.result.element, true);
    const label = context.text("result");
    view.result.body.append(valueElement(task.result, { name: `result-${task.id}`, label, context, format }));
  }

  showError({ error }) {
    const { view } = this;
    setShown(view.error.element, Boolean(error));
    if (!error || view.shownError === error) return;
    view.shownError = error;
    view.error.body.replaceChildren(h("pre", { class: "joblib-text joblib-error", tabindex: 0, dir: "auto" }, error));
  }

  showFacts(task) {
    const { context, format } = this;
    const isOver = ENDED.has(task.status);
    const facts = {
      id: h("code", {}, task.id),
      queue: task.queue_position ? format.number(task.queue_position) : "",
      submitted_at: format.time(task.created_at),
      run_at: isScheduled(task, format.now()) ? format.time(task.run_at) : "",
      started_at: format.time(task.started_at),
      ended_at: format.time(task.completed_at),
      worker: task.worker_id ? h("bdi", {}, visible(task.worker_id)) : "",
      attempt: task.attempt ? format.number(task.attempt) : "",
      retries: task.retries_left && !isOver ? format.number(task.retries_left) : "",
      timeout: task.timeout_seconds ? format.duration(task.timeout_seconds * 1000) : "",
      retry_of: task.retry_of ? this.linkTo(task.retry_of) : "",
    };
    const state = JSON.stringify(Object.values(facts).map((fact) => fact.textContent ?? fact));
    if (state === this.view.factsState) return;
    this.view.factsState = state;
    const shown = Object.entries(facts).filter(([, fact]) => fact !== "");
    this.view.facts.replaceChildren(
      ...shown.map(([key, fact]) => h("div", {}, h("dt", {}, context.text(`fact_${key}`)), h("dd", {}, fact))),
    );
  }

  linkTo(id) {
    const parameters = this.context.parameters();
    parameters.set("task", id);
    const link = h("a", { href: `?${parameters}` }, id);
    link.addEventListener("click", (event) => {
      if (event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      this.context.setAddress({ task: id });
    });
    return link;
  }

  /** Reads the files and attempts, which events do not contain. */
  async reread() {
    clearTimeout(this.rereadTimer);
    this.rereadTimer = null;
    const { id, view, context } = this;
    if (!this.task?.attempt) return;
    const { signal } = this.controller;
    try {
      const [files, attempts] = await Promise.all([
        context.api.get(["tasks", id, "files"], { signal }),
        context.api.get(["tasks", id, "attempts"], { signal }),
      ]);
      if (view !== this.view) return;
      setShown(view.files.element, this.files.show(id, files.data) > 0);
      // A single attempt says no more than the task does.
      setShown(view.attempts.element, attempts.data.length > 1);
      const state = JSON.stringify(attempts.data);
      if (state === view.attemptsState) return;
      view.attemptsState = state;
      view.attempts.body.replaceChildren(attemptsTable(attempts.data, { context, format: this.format }));
    } catch (error) {
      // Read again at the next change, or when the connection is back.
      if (!["AbortError", "NetworkError", "Problem"].includes(error.name)) throw error;
    }
  }

  /** Writes the times anew, which pass without an event. */
  tick() {
    const { task, view, context, format } = this;
    if (!task) return;
    const started = task.started_at && Date.parse(task.started_at);
    let text = "";
    if (isScheduled(task, format.now())) text = context.text("starts", { when: format.until(task.run_at) });
    else if (task.status === "pending") {
      text = context.text("submitted", { when: format.ago(task.created_at) });
    } else if (task.status === "running" && started) {
      text = context.text("running_for", { duration: format.duration(format.now() - started) });
    } else if (started && task.completed_at) {
      text = context.text("took", { duration: format.duration(Date.parse(task.completed_at) - started) });
    }
    setText(view.time, text);
    setStatus(view.status, task, context, format);
  }
}
