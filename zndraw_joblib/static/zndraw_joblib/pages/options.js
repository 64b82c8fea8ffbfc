// The options of a submit besides the payload.

import { element } from "./elements.js";
import { Budget, placeOf } from "./field.js";
import { numberField, stringField } from "./values.js";

const FIELDS = {
  retries: { kind: "integer", schema: {} },
  delay: { kind: "number", schema: {} },
  run_at: { kind: "string", schema: { format: "date-time" } },
  timeout_seconds: { kind: "number", schema: {} },
};

/** `{node, get(), check(), field(name), reveal(field), clearErrors()}`; `get` leaves empty ones out. */
export function createOptions(text) {
  const form = { text, changed() {}, budget: new Budget() };
  const fields = new Map(
    Object.entries(FIELDS).map(([name, { kind, schema }]) => {
      const described = { ...schema, description: text(`option.${name}.help`) };
      const field = { kind, schema: described, nullable: false };
      const place = placeOf(form, field, { label: text(`option.${name}`) });
      const made = kind === "string" ? stringField(place) : numberField(place);
      return [name, made];
    }),
  );
  const node = element(
    "details", { class: "joblib-details" },
    element("summary", {}, text("options.title")),
    [...fields.values()].map((field) => field.node),
  );
  return {
    node,
    get: () =>
      Object.fromEntries(
        [...fields].map(([name, field]) => [name, field.get()]).filter(([, value]) => value !== undefined),
      ),
    check: () => [...fields.values()].flatMap((field) => field.check()),
    field: (name) => fields.get(name) ?? null,
    reveal(field) {
      if (node.contains(field.node)) node.open = true;
    },
    clearErrors: () => fields.forEach((field) => field.clearErrors()),
  };
}
