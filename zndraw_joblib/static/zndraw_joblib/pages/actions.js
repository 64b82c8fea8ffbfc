// Cancelling a task, after a question, and submitting an ended one again.

import { element as h, randomId, setShown } from "./elements.js";
import { ENDED } from "./format.js";

export class TaskActions {
  /**
   * `onTask(task)` gets the cancelled task, `onRetry(task)` the new one, `onRefusal(message)` the reason
   * in words, or null at the beginning of an attempt.
   */
  constructor({ context, onTask, onRetry, onRefusal }) {
    Object.assign(this, { context, onTask, onRetry, onRefusal });
    const text = (key) => context.text(key);
    this.cancelButton = h("button", { type: "button", onclick: () => this.dialog.showModal() }, text("cancel"));
    this.retryButton = h("button", { type: "button", onclick: () => this.retry() }, text("retry"));
    const no = h("button", { type: "submit", value: "no" }, text("keep"));
    const yes = h("button", { type: "submit", value: "yes", class: "joblib-danger" }, text("cancel_yes"));
    this.dialog = h(
      "dialog",
      { class: "joblib-dialog", "aria-labelledby": "joblib-cancel-question" },
      h("form", { method: "dialog" }, h("p", { id: "joblib-cancel-question" }, text("cancel_question")), h("p", {}, no, " ", yes)),
    );
    this.dialog.addEventListener("close", () => {
      if (this.dialog.returnValue === "yes") this.cancel();
      this.dialog.returnValue = "";
    });
    this.element = h("p", { class: "joblib-actions" }, this.cancelButton, this.retryButton, this.dialog);
    // One key for each new task, so that a second click after a lost answer submits nothing twice.
    this.key = null;
  }

  show(task) {
    this.task = task;
    const hasEnded = ENDED.has(task.status);
    if (hasEnded && this.dialog.open) this.dialog.close("no");
    setShown(this.cancelButton, !hasEnded);
    setShown(this.retryButton, hasEnded);
  }

  async send(button, request) {
    if (button.getAttribute("aria-disabled")) return null;
    // Not `disabled`, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    this.onRefusal(null);
    try {
      return (await request()).data;
    } catch (error) {
      const isOffline = error.name === "NetworkError";
      this.onRefusal(isOffline ? this.context.text("not_sent") : this.inWords(error));
      return null;
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  inWords(error) {
    if (error.status === 403) return this.context.text("not_allowed", { reason: error.message });
    return error.message;
  }

  async cancel() {
    const { api } = this.context;
    const { id } = this.task;
    const task = await this.send(this.cancelButton, () =>
      api.request("PATCH", ["tasks", id], { status: "cancelled" }, { exact: true }),
    );
    if (task) this.onTask(task);
  }

  async retry() {
    this.key ??= randomId();
    const headers = { "Idempotency-Key": this.key };
    const path = ["tasks", this.task.id, "retry"];
    const task = await this.send(this.retryButton, () => this.context.api.request("POST", path, {}, { headers }));
    if (!task) return;
    this.key = null;
    this.onRetry(task);
  }
}
