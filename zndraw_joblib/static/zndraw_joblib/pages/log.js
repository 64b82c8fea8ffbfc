// The log of a task, which is followed while the task runs.

import { element as h, setShown } from "./elements.js";

// The wait for more text that a request asks for, in seconds.
const WAIT_SECONDS = 25;
// The pause before the next look where the server does not wait (under WSGI), and after an error.
const PAUSE_MILLISECONDS = 3_000;
// Older text leaves the page; the server keeps up to 1 MiB.
const MOST_CHARACTERS = 1_000_000;
const PART_CHARACTERS = 100_000;
const BOTTOM_PIXELS = 30;
// Colours of terminals, which a page would show as characters.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])/g;

const readable = (text) => text.replace(ESCAPES, "").replace(/\r\n?/g, "\n");

export class Log {
  /** `element` gets the text; `onText()` is called when there is some. */
  constructor({ taskId, context, onText }) {
    Object.assign(this, { taskId, context, onText });
    this.cutNote = h("p", { class: "joblib-more", hidden: true }, context.text("log_cut"));
    this.text = h("pre", { class: "joblib-text joblib-log", tabindex: 0, role: "region", "aria-label": context.text("log") });
    this.element = h("div", {}, this.cutNote, this.text);
    this.offset = 0;
    this.length = 0;
    this.controller = new AbortController();
    this.follow();
  }

  close() {
    this.controller.abort();
  }

  async follow() {
    const { signal } = this.controller;
    while (!signal.aborted) {
      let waited = false;
      try {
        const url = this.context.api.url(["tasks", this.taskId, "log"], { offset: this.offset });
        const answer = await this.context.api.get(url, { signal, headers: { Prefer: `wait=${WAIT_SECONDS}` } });
        waited = answer.headers.has("Preference-Applied") || answer.data.text !== "";
        this.append(answer.data);
        if (answer.data.ended) return;
      } catch (error) {
        if (error.name === "AbortError" || [401, 403, 404].includes(error.status)) return;
      }
      if (!waited || document.hidden) await this.pause(signal);
    }
  }

  /** Waits a moment, and longer while nobody sees the page. */
  pause(signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(done, PAUSE_MILLISECONDS);
      function done() {
        if (document.hidden && !signal.aborted) {
          document.addEventListener("visibilitychange", done, { once: true });
          return;
        }
        clearTimeout(timer);
        resolve();
      }
      signal.addEventListener("abort", done, { once: true });
    });
  }

  append({ offset, text, next_offset: next }) {
    if (offset > this.offset) setShown(this.cutNote, true);
    this.offset = next;
    if (!text) return;
    const { text: pre } = this;
    const isAtBottom = pre.scrollHeight - pre.scrollTop - pre.clientHeight < BOTTOM_PIXELS;
    const shown = readable(text);
    for (let start = 0; start < shown.length; start += PART_CHARACTERS) {
      pre.append(document.createTextNode(shown.slice(start, start + PART_CHARACTERS)));
    }
    this.length += shown.length;
    while (this.length > MOST_CHARACTERS && pre.childNodes.length > 1) {
      this.length -= pre.firstChild.data.length;
      pre.firstChild.remove();
      setShown(this.cutNote, true);
    }
    this.onText();
    if (isAtBottom) pre.scrollTop = pre.scrollHeight;
  }
}
