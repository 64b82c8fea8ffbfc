// A task in the list.

import { cut, h, setShown, setText, visible } from "./elements.js";
import { ENDED, badge, isScheduled, setStatus, sortKey } from "./format.js";

const MESSAGE_CHARACTERS = 200;

/** The last line of an error, because a traceback ends with its reason. */
export function reasonOf(error) {
  return error.trimEnd().split("\n").pop().trim();
}

export class TaskRow {
  constructor(task, context, format) {
    this.context = context;
    this.format = format;
    this.key = sortKey(task);
    this.badge = badge();
    this.link = h("a", { class: "joblib-task-name" }, h("bdi", {}, visible(task.job_name)));
    this.message = h("p", { class: "joblib-task-message", dir: "auto" });
    this.bar = h("progress", { max: 1, "aria-label": context.text("progress") });
    this.percent = h("span", { class: "joblib-task-percent" });
    this.progress = h("span", { class: "joblib-task-progress" }, this.bar, this.percent);
    this.facts = h("span");
    this.time = h("time");
    this.element = h(
      "li",
      { class: "joblib-task", "data-task": task.id },
      this.badge,
      h("div", { class: "joblib-task-main" }, this.link, this.message),
      this.progress,
      h("div", { class: "joblib-task-meta" }, this.facts, this.time),
    );
    this.update(task);
  }

  update(task) {
    this.task = task;
    setStatus(this.badge, task, this.context, this.format);
    const message = task.status === "failed" && task.error ? reasonOf(task.error) : task.message;
    setText(this.message, cut(message ?? "", MESSAGE_CHARACTERS));
    setShown(this.message, Boolean(message));
    const fraction = task.status === "running" ? task.progress : null;
    setShown(this.progress, fraction !== null);
    if (fraction !== null) {
      this.bar.value = fraction;
      setText(this.percent, this.format.percent(fraction));
    }
    setText(this.facts, this.factsOf(task));
    this.tick();
  }

  factsOf(task) {
    const { context, format } = this;
    const facts = [];
    if (task.queue_position) {
      facts.push(context.text("queue_place", { place: format.number(task.queue_position) }));
    }
    if (task.attempt > 1) facts.push(context.text("attempt_number", { number: task.attempt }));
    if (task.retries_left && !ENDED.has(task.status)) {
      facts.push(format.plural("retries_left", task.retries_left));
    }
    return facts.join(" · ");
  }

  /** Writes the times anew, which pass without an event. */
  tick() {
    const { context, format, task } = this;
    const now = format.now();
    let moment = task.created_at;
    let text;
    if (isScheduled(task, now)) {
      moment = task.run_at;
      text = context.text("starts", { when: format.distance(moment) });
    } else if (task.status === "running" && task.started_at) {
      moment = task.started_at;
      text = context.text("running_for", { duration: format.duration(now - Date.parse(moment)) });
    } else if (ENDED.has(task.status) && task.completed_at) {
      moment = task.completed_at;
      text = context.text("ended", { when: format.distance(moment) });
      if (task.started_at) {
        const took = format.duration(Date.parse(moment) - Date.parse(task.started_at));
        text = `${context.text("took", { duration: took })} · ${text}`;
      }
    } else text = context.text("submitted", { when: format.distance(moment) });
    setText(this.time, text);
    if (this.time.dateTime !== moment) {
      this.time.dateTime = moment;
      this.time.title = format.date(moment);
    }
    setStatus(this.badge, task, context, format);
  }
}
