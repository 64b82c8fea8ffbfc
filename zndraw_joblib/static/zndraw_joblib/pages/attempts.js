// The attempts of a task, as a table.

import { cut, element as h, visible } from "./elements.js";
import { reasonOf } from "./row.js";
import { pagedTable } from "./tables.js";

const REASON_CHARACTERS = 200;
const COLUMNS = ["attempt", "outcome", "worker", "started_at", "ended_at", "error"];

/** The reason of an error, and the whole of it on request. */
function errorCell(error) {
  const reason = cut(reasonOf(error), REASON_CHARACTERS);
  if (reason === error) return reason;
  const text = h("pre", { class: "joblib-text", tabindex: 0 }, error);
  return h("details", {}, h("summary", {}, reason), text);
}

export function attemptsTable(attempts, { context, format }) {
  const moment = (value) => (value ? format.date(value) : "");
  const cells = (attempt) => [
    format.number(attempt.attempt),
    attempt.outcome ? context.text(`outcome_${attempt.outcome}`) : "",
    visible(attempt.worker_id ?? ""),
    moment(attempt.started_at),
    moment(attempt.ended_at),
    attempt.error ? errorCell(attempt.error) : "",
  ];
  return pagedTable({
    label: context.text("attempts"),
    columns: COLUMNS.map((key) => context.text(`fact_${key}`)),
    count: attempts.length,
    cells: (index) => cells(attempts[index]),
    context,
    format,
  });
}
