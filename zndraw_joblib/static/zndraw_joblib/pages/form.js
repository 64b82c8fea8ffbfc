// The form of one job: its payload, options of the task, the JSON that is sent, and the submit.

import { payloadField } from "./builder.js";
import { cut, element, freshId, visible } from "./elements.js";
import { MAX_HELP, button as smallButton } from "./field.js";
import { isObject, parseJSON } from "./json.js";
import { createOptions } from "./options.js";
import { ownText, resolve } from "./schema.js";
import { createSubmission } from "./submission.js";

/** Schemas with more characters are edited as text, because reading them would take too long. */
const MAX_SCHEMA = 64 * 1024;

/** The field at a JSON pointer, as far as fields go, and the tokens that are left. */
function fieldAt(root, tokens) {
  let field = root;
  for (let index = 0; index < tokens.length; index++) {
    const next = field.child(tokens[index]);
    if (!next) return { field, left: tokens.slice(index) };
    field = next;
  }
  return { field, left: [] };
}

const tokensOf = (pointer) =>
  pointer.split("/").slice(1).map((token) => token.replace(/~1/g, "/").replace(/~0/g, "~"));

/**
 * The form of a job, as the API describes it (with `parseJSON`'s integers).
 * Returns `{node, focus, setNotice(text)}`.
 */
export function createForm(context, job) {
  const { text } = context;
  const schema = job.schema;
  const name = `${job.category}: ${visible(job.name)}`;
  const slot = element("div", { class: "joblib-payload" });
  const notice = element("p", { class: "joblib-notice", hidden: true });
  const status = element("div", { class: "joblib-outcome", role: "status" });
  const problems = element("div", { class: "joblib-problems", role: "alert", tabindex: "-1", hidden: true });
  const options = createOptions(text);
  const submit = element("button", { type: "submit", class: "joblib-primary" }, text("form.submit"));
  let payload = null;

  // The JSON that is sent. Edited by hand it is sent as it stands, and the fields wait.
  const area = element("textarea", {
    id: freshId("json"), class: "joblib-code", rows: 10, spellcheck: "false", autocomplete: "off",
  });
  const areaError = element("p", { class: "joblib-error", id: freshId("error"), hidden: true });
  const areaHelp = element("p", { class: "joblib-help", id: freshId("help") });
  area.setAttribute("aria-describedby", `${areaHelp.id} ${areaError.id}`);
  const back = smallButton(text("form.back"), () => backToFields());
  back.hidden = true;
  const details = element(
    "details", { class: "joblib-details" },
    element("summary", {}, text("form.json")),
    element("label", { for: area.id }, text("form.payload")),
    areaHelp, area, areaError, back,
  );
  let byHand = false;

  function changed() {
    if (!byHand && payload && details.open) showJSON();
  }

  function showJSON() {
    area.value = JSON.stringify(payload.get(), null, 2);
    areaHelp.textContent = text("form.jsonHelp");
  }

  function setByHand(value) {
    byHand = value;
    back.hidden = !value || payload === null;
    for (const each of slot.querySelectorAll("input, select, textarea, button")) {
      if (value && !each.disabled) {
        each.disabled = true;
        each.dataset.waits = "";
      } else if (!value && "waits" in each.dataset) {
        each.disabled = false;
        delete each.dataset.waits;
      }
    }
    slot.classList.toggle("joblib-waits", value);
    areaHelp.textContent = text(value && payload ? "form.byHand" : payload ? "form.jsonHelp" : "form.jsonOnly");
  }

  function edited() {
    const value = parsedArea();
    if (!isObject(value)) throw new Error(text("form.notObject"));
    return value;
  }

  function parsedArea() {
    try {
      return parseJSON(area.value);
    } catch (error) {
      throw new Error(text("field.json", { reason: error.message }));
    }
  }

  function backToFields() {
    let value;
    try {
      value = edited();
    } catch (error) {
      showAreaError(error.message);
      return;
    }
    const made = payloadField(schema, value, { text, changed });
    if (!made) {
      showAreaError(text("form.noFields"));
      return;
    }
    payload = made;
    slot.replaceChildren(payload.node);
    clearErrors();
    setByHand(false);
    showJSON();
    back.blur();
    details.querySelector("summary").focus();
  }

  function showAreaError(message) {
    details.open = true;
    areaError.textContent = message;
    areaError.hidden = false;
    area.setAttribute("aria-invalid", "true");
    area.focus();
  }

  area.addEventListener("input", () => {
    areaError.hidden = true;
    area.removeAttribute("aria-invalid");
    if (!byHand) setByHand(true);
  });
  details.addEventListener("toggle", () => {
    if (details.open && !byHand && payload) showJSON();
  });

  function clearErrors() {
    payload?.clearErrors();
    options.clearErrors();
    areaError.hidden = true;
    area.removeAttribute("aria-invalid");
    problems.hidden = true;
    problems.replaceChildren();
  }

  function showProblem(message, list = [], link = null) {
    problems.replaceChildren(
      element("p", {}, message, link && " ", link),
      ...(list.length ? [element("ul", {}, list.map((each) => element("li", {}, each)))] : []),
    );
    problems.hidden = false;
  }

  /** Shows the server's errors at their fields; returns those that have none, and the first field. */
  function place(errors) {
    const rest = [];
    const seen = new Map();
    for (const { pointer = "", detail = "" } of errors) {
      const [first, ...tokens] = tokensOf(pointer);
      let field = options.field(first);
      if (first === "payload" && byHand) {
        rest.push(`${pointer.slice("/payload".length)} ${detail}`.trim());
        continue;
      }
      if (first === "payload" && payload) {
        const found = fieldAt(payload, tokens);
        field = found.field;
        // A missing property's error is that of its object, and its text names the property.
        const missing = field.names?.().find((each) => detail.includes(JSON.stringify(each)));
        if (!found.left.length && missing !== undefined) field = field.child(missing);
        else if (found.left.length) field = field.showError ? field : null;
      }
      if (!field?.showError) rest.push(detail);
      else if (seen.has(field)) seen.set(field, `${seen.get(field)}\n${detail}`);
      else seen.set(field, detail);
    }
    for (const [field, message] of seen) field.showError(message);
    const [field] = [...seen.keys()].sort((one, other) =>
      one.node.compareDocumentPosition(other.node) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1,
    );
    return { rest, field };
  }

  function showErrors(message, errors) {
    const { rest, field } = place(errors);
    showProblem(message, rest);
    if (field) {
      options.reveal(field);
      field.focus();
    } else problems.focus();
  }

  const submission = createSubmission(context, job, {
    accepted(task) {
      const link = element("a", { href: `?task=${encodeURIComponent(task.id)}` }, text("form.showTask"));
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        context.setAddress({ task: task.id });
      });
      status.replaceChildren(element("p", { class: "joblib-done" }, text("form.submitted"), " ", link));
    },
    refused: showErrors,
    failed(message, link) {
      showProblem(message, [], link);
      problems.focus();
    },
  });

  async function send(event) {
    event.preventDefault();
    if (submission.busy()) return;
    clearErrors();
    status.replaceChildren();
    let value;
    if (byHand || !payload) {
      try {
        value = edited();
      } catch (error) {
        showAreaError(error.message);
        return;
      }
    } else value = payload.get();
    const errors = [...(byHand || !payload ? [] : payload.check()), ...options.check()];
    if (errors.length) {
      for (const { field, message } of errors) field.showError(message);
      showProblem(text("form.check"));
      options.reveal(errors[0].field);
      errors[0].field.focus();
      return;
    }
    // The button keeps the focus: a disabled one would lose it.
    submit.setAttribute("aria-disabled", "true");
    submit.textContent = text("form.sending");
    try {
      await submission.send({ payload: value, ...options.get() });
    } finally {
      submit.removeAttribute("aria-disabled");
      submit.textContent = text("form.submit");
    }
  }

  if (JSON.stringify(schema).length <= MAX_SCHEMA * 2) {
    payload = payloadField(schema, undefined, { text, changed });
  }
  if (payload) slot.append(payload.node);
  else {
    area.value = "{}";
    details.open = true;
    setByHand(true);
  }
  if (payload?.names && !payload.names().length && !payload.check().length && !slot.textContent) {
    slot.append(element("p", { class: "joblib-help" }, text("form.noParameters")));
  }
  const heading = element("h3", { id: freshId("form"), tabindex: "-1" }, name);
  const description = ownText(resolve(schema, schema) ?? {}, "description").trim();
  const node = element(
    "form", { class: "joblib-form", novalidate: true, "aria-labelledby": heading.id, onsubmit: send },
    heading,
    description ? element("p", { class: "joblib-help" }, cut(description, MAX_HELP)) : null,
    notice, problems, slot, options.node, details,
    element("div", { class: "joblib-actions" }, submit), status,
  );
  if (!context.maySubmit) {
    submit.disabled = true;
    status.append(element("p", {}, text("form.mayNot")));
  }
  return {
    node,
    focus: () => heading.focus(),
    setNotice(message) {
      notice.textContent = message ?? "";
      notice.hidden = !message;
    },
  };
}
