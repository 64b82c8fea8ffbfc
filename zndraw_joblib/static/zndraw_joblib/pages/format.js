// Numbers, times and counts in the language of the page.

import { element as h, setText } from "./elements.js";

const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const SIZES = ["byte", "kilobyte", "megabyte", "gigabyte"];

/** `context` gives `locale` and `texts`. */
export function createFormat(context) {
  const locale = context.locale;
  const plurals = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  const percents = new Intl.NumberFormat(locale, { style: "percent" });
  const dates = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "always", style: "long" });
  const unitFormats = new Map();
  // Milliseconds that the server's clock is ahead of the browser's.
  let ahead = 0;

  function unit(value, name, digits = 0) {
    const key = `${name}${digits}`;
    if (!unitFormats.has(key)) {
      const options = { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits };
      unitFormats.set(key, new Intl.NumberFormat(locale, options));
    }
    return unitFormats.get(key).format(value);
  }

  /** A positive distance in its largest unit; `sign` is -1 for the past. */
  function distance(milliseconds, sign) {
    const seconds = Math.round(milliseconds / 1000);
    const [name, size] = UNITS.find(([, unitSize]) => seconds >= unitSize) ?? UNITS[3];
    // -0 reads "0 seconds ago".
    return relative.format(sign * Math.trunc(seconds / size), name);
  }

  const format = {
    number: (value) => numbers.format(value),
    percent: (value) => percents.format(value),
    now: () => Date.now() + ahead,
    date: (moment) => dates.format(new Date(moment)),

    /** Goes by the server's clock, by its header `Date`, where the browser's is some seconds off. */
    setClock(headers) {
      const difference = Date.parse(headers.get("Date")) - Date.now();
      if (Number.isFinite(difference)) ahead = Math.abs(difference) > 3_000 ? difference : 0;
    },

    /** The text of a key in the form for this count: `new_one`, `new_other`. */
    plural(key, count) {
      const form = `${key}_${plurals.select(count)}`;
      return context.text(form in context.texts ? form : `${key}_other`, { count: numbers.format(count) });
    },

    /** A duration in its two largest units: "3 min, 20 sec". */
    duration(milliseconds) {
      const seconds = Math.max(0, milliseconds / 1000);
      if (seconds < 10) return unit(seconds, "second", seconds < 1 ? 2 : 1);
      const rounded = Math.floor(seconds);
      const first = UNITS.findIndex(([, size]) => rounded >= size);
      const parts = [unit(Math.floor(rounded / UNITS[first][1]), UNITS[first][0])];
      const rest = UNITS[first + 1] && Math.floor((rounded % UNITS[first][1]) / UNITS[first + 1][1]);
      if (rest) parts.push(unit(rest, UNITS[first + 1][0]));
      return parts.join(" ");
    },

    /**
     * How long ago a moment was: "3 minutes ago". One that seems ahead is now, because the clocks of
     * the server and of the browser differ.
     */
    ago: (moment) => distance(Math.max(0, format.now() - Date.parse(moment)), -1),

    /** How far ahead a moment is: "in 3 minutes". */
    until: (moment) => distance(Math.max(0, Date.parse(moment) - format.now()), 1),

    size(bytes) {
      let index = 0;
      let value = bytes;
      while (value >= 1000 && index < SIZES.length - 1) [value, index] = [value / 1000, index + 1];
      return unit(value, SIZES[index], index ? 1 : 0);
    },

    /** An element with a moment; "" for none. */
    time(moment) {
      if (!moment) return "";
      return h("time", { datetime: moment }, format.date(moment));
    },
  };
  return format;
}

/** A moment as text that sorts by time: the API leaves a fraction out where it is zero. */
export function sortKey(task) {
  const [seconds, fraction = ""] = task.created_at.replace("Z", "").split(".");
  return `${seconds}.${fraction.padEnd(6, "0")} ${task.id}`;
}

export const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether a task waits for its time (`run_at`). */
export const isScheduled = (task, now) =>
  task.status === "pending" && task.run_at !== null && Date.parse(task.run_at) > now;

/** The word and the colour of a task's status. */
export function badge() {
  return h("span", { class: "joblib-status" });
}

export function setStatus(element, task, context, format) {
  const status = isScheduled(task, format.now()) ? "scheduled" : task.status;
  setText(element, context.text(`status_${status}`));
  if (element.dataset.status !== status) element.dataset.status = status;
}
