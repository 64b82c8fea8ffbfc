// The rows of one page of tasks, newest first. Rows change at once; rows come and go only while
// nobody points at the list, because it must not move under the pointer.

import { setShown, setText } from "./elements.js";
import { sortKey } from "./format.js";
import { TaskRow } from "./row.js";

// More waiting tasks than this are counted no further.
const MOST_WAITING = 1_000;

export class TaskList {
  /**
   * `element` is the list, `button` tells how many new tasks wait. `matches(task)` is whether a task
   * belongs to the filters, `onFull()` is called when the list has grown beyond `most` rows.
   */
  constructor({ element, button, context, format, matches, onFull, most }) {
    Object.assign(this, { element, button, context, format, matches, onFull, most });
    this.rows = new Map();
    this.changed = new Map();
    this.waiting = new Map();
    this.leaving = new Set();
    this.isFirstPage = true;
    this.isLastPage = true;
    this.newest = "";
    this.frame = null;
    element.addEventListener("pointerleave", () => this.schedule());
    element.addEventListener("focusout", () => this.schedule());
    window.addEventListener("scroll", () => this.waiting.size && this.schedule(), { passive: true });
  }

  /** Notes the present state of a task; drawn with all others in the next frame of the browser. */
  change(task) {
    this.changed.set(task.id, task);
    this.schedule();
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  /** Shows these tasks in place of all others. */
  replace(tasks) {
    this.leaving = new Set(this.rows.keys());
    this.drop();
    this.insert(tasks);
    this.tellWaiting();
  }

  /** Notes which page follows, and its newest tasks: of the first page, whichever one is shown. */
  setPage({ isFirst, isLast, newestTasks, again }) {
    this.isFirstPage = isFirst;
    this.isLastPage = isLast;
    if (!again) {
      this.waiting.clear();
      this.newest = newestTasks.length ? sortKey(newestTasks[0]) : "";
    } else if (!isFirst) {
      for (const task of newestTasks) if (sortKey(task) > this.newest) this.waiting.set(task.id, task);
    }
  }

  /** Takes over a page that was read again: rows that it lacks leave, others come. */
  merge(tasks) {
    const present = new Set();
    for (const task of tasks) {
      present.add(task.id);
      this.leaving.delete(task.id);
      const row = this.rows.get(task.id);
      if (row) row.update(task);
      else if (this.isFirstPage) this.waiting.set(task.id, task);
    }
    for (const id of this.rows.keys()) if (!present.has(id)) this.leaving.add(id);
    this.schedule();
  }

  draw() {
    for (const [id, task] of this.changed) {
      const row = this.rows.get(id);
      const matches = this.matches(task);
      if (row) {
        row.update({ ...row.task, queue_position: undefined, ...task });
        if (matches) this.leaving.delete(id);
        else this.leaving.add(id);
      } else if (!matches) this.waiting.delete(id);
      else if (this.isWithin(sortKey(task)) && this.waiting.size < MOST_WAITING) {
        this.waiting.set(id, task);
      }
    }
    this.changed.clear();
    if (this.isFirstPage && !this.isHeld()) this.apply();
    else if (!this.isFirstPage && !this.isHeld()) this.drop();
    this.tellWaiting();
  }

  /** Whether a task with this key is on the page, or newer than all that the reader has seen. */
  isWithin(key) {
    if (key > this.newest) return true;
    if (!this.isFirstPage) return false;
    let oldest = null;
    for (const row of this.rows.values()) if (oldest === null || row.key < oldest) oldest = row.key;
    return this.isLastPage || oldest === null || key > oldest;
  }

  isHeld() {
    const { element } = this;
    const points = matchMedia("(hover: hover)").matches && element.matches(":hover");
    const isScrolled = element.getBoundingClientRect().top < 0;
    return points || isScrolled || element.querySelector(":focus-visible") !== null;
  }

  drop() {
    for (const id of this.leaving) {
      this.rows.get(id)?.element.remove();
      this.rows.delete(id);
    }
    this.leaving.clear();
  }

  /** Lets the waiting rows in, each at its place, and the leaving ones go. */
  apply() {
    this.drop();
    const coming = [...this.waiting.values()];
    this.waiting.clear();
    this.insert(coming);
    this.tellWaiting();
    if (this.rows.size > this.most) this.onFull();
  }

  insert(tasks) {
    const coming = tasks.map((task) => new TaskRow(task, this.context, this.format));
    coming.sort((a, b) => (a.key < b.key ? 1 : -1));
    let next = this.element.firstElementChild;
    for (const row of coming) {
      while (next && this.rows.get(next.dataset.task).key > row.key) next = next.nextElementSibling;
      this.element.insertBefore(row.element, next);
      if (this.isFirstPage && row.key > this.newest) this.newest = row.key;
    }
    for (const row of coming) this.rows.set(row.task.id, row);
    if (coming.length) this.link();
  }

  tellWaiting() {
    const count = this.waiting.size;
    setShown(this.button, count > 0);
    if (count) setText(this.button, this.format.plural("new_tasks", count));
  }

  /** Writes the addresses of the links anew, which keep the filters of the page. */
  link() {
    const parameters = this.context.parameters();
    for (const row of this.rows.values()) {
      parameters.set("task", row.task.id);
      row.link.setAttribute("href", `?${parameters}`);
    }
  }

  tick() {
    for (const row of this.rows.values()) row.tick();
  }
}
