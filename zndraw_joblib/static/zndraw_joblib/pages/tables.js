// Tables that show their first rows, and more on request.

import { element as h } from "./elements.js";

const ROWS = 100;

/**
 * A table of `count` rows. `cells(index)` returns the texts or elements of a row; `numeric` is whether its columns
 * are aligned as numbers.
 */
export function pagedTable({ label, columns, count, cells, context, format, numeric = false }) {
  const body = h("tbody");
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column)));
  const region = h(
    "div",
    { class: "joblib-scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: numeric ? "joblib-numeric" : null }, h("thead", {}, head), body),
  );
  let shown = 0;
  const more = h("button", { type: "button", onclick: () => grow(true) });
  const footer = h("p", { class: "joblib-more" });

  function grow(byHand) {
    const end = Math.min(count, shown + ROWS);
    const first = shown;
    const rows = [];
    for (; shown < end; shown += 1) {
      rows.push(h("tr", {}, cells(shown).map((text) => h("td", { dir: "auto" }, text))));
    }
    body.append(...rows);
    if (shown < count) {
      more.textContent = context.text("more_rows");
      const values = { shown: format.number(shown), count: format.number(count) };
      footer.replaceChildren(context.text("rows_shown", values), " ", more);
    } else footer.replaceChildren();
    if (byHand) {
      // The button may be gone, and the reader goes on at the first new row.
      const row = body.children[first];
      row.tabIndex = -1;
      row.focus({ preventScroll: true });
    }
  }

  grow(false);
  return h("div", {}, region, footer);
}
