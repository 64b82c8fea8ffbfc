// A task in the list.

import { cut, element as h, setShown, setText, visible } from "./elements.js";
import { ENDED, badge, isScheduled, setStatus, sortKey } from "./format.js";

const MESSAGE_CHARACTERS = 200;

/** The line of an error that tells the reason: of a bare traceback the last one, else the first. */
export function reasonOf(error) {
  const lines = error.trim().split("\n");
  return (lines[0].startsWith("Traceback") ? lines.at(-1) : lines[0]).trim();
}

/** The name of a job, large, and its room and category, small. */
export function jobName(fullName) {
  const end = fullName.lastIndexOf(":");
  const place = fullName.slice(0, Math.max(end, 0)).replace(":", " · ");
  return [h("bdi", {}, visible(fullName.slice(end + 1))), " ", h("bdi", { class: "joblib-task-place" }, visible(place))];
}

export class TaskRow {
  constructor(task, context, format) {
    this.context = context;
    this.format = format;
    this.key = sortKey(task);
    this.badge = badge();
    this.link = h("a", { class: "joblib-task-name" }, jobName(task.job_name));
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
      h("div", { class: "joblib-task-main" }, this.link),
      h("div", { class: "joblib-task-state" }, this.progress, this.message),
      h("div", { class: "joblib-task-meta" }, this.facts, this.time),
    );
    this.update(task);
  }

  update(task) {
    this.task = task;
    setStatus(this.badge, task, this.context, this.format);
    const message = this.messageOf(task);
    setText(this.message, cut(message, MESSAGE_CHARACTERS));
    setShown(this.message, message !== "");
    const fraction = task.status === "running" ? task.progress : null;
    setShown(this.progress, fraction !== null);
    if (fraction !== null) {
      this.bar.value = fraction;
      setText(this.percent, this.format.percent(fraction));
    }
    const facts = this.factsOf(task);
    setText(this.facts, facts);
    setShown(this.facts, facts !== "");
    this.tick();
  }

  messageOf(task) {
    if (task.status === "failed" || task.status === "pending") return reasonOf(task.error ?? "");
    return (ENDED.has(task.status) ? null : task.message) ?? "";
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
      text = context.text("starts", { when: format.until(moment) });
    } else if (task.status === "running" && task.started_at) {
      moment = task.started_at;
      text = context.text("running_for", { duration: format.duration(now - Date.parse(moment)) });
    } else if (ENDED.has(task.status) && task.completed_at) {
      moment = task.completed_at;
      text = context.text("ended", { when: format.ago(moment) });
      if (task.started_at) {
        const took = format.duration(Date.parse(moment) - Date.parse(task.started_at));
        text = `${context.text("took", { duration: took })} · ${text}`;
      }
    } else text = context.text("submitted", { when: format.ago(moment) });
    setText(this.time, text);
    if (this.time.dateTime !== moment) {
      this.time.dateTime = moment;
      this.time.title = format.date(moment);
    }
    setStatus(this.badge, task, context, format);
  }
}
