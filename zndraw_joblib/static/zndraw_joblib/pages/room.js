// The room page. `context` is what its parts share.

import { createApi } from "./api.js";
import { startJobs } from "./jobs.js";
import { startTasks } from "./tasks.js";

const parsed = (element) => JSON.parse(element.textContent);

/**
 * From the page's JSON (`views.py`): roomId, apiPath (`/v1/joblib/`), roomPath (of the room in the
 * API, without a slash at its end), socketPath (of the WebSocket with the room's events), loginPath,
 * identity, locale, maxPageSize, mayAdminister, maySubmit. Besides:
 *
 * - `api`: see `api.js`.
 * - `texts`: the texts of all elements `<script type="application/json" id="joblib-texts-...">`.
 * - `text(key, values)`: the text of a key with `{name}` replaced by the value of this name.
 * - `onEvent(type, listener)`, `emit(type, document)`: the room's events by their types. The part
 *   that receives them from the server emits; any part listens.
 * - `setAddress({task: id, job: null}, {replace})`: changes parameters of the page's address; null
 *   removes one. `onAddress(listener)`: called with `URLSearchParams` after each change, the back
 *   button's too. `parameters()`: the present ones.
 */
function createContext() {
  const data = parsed(document.getElementById("joblib-room-data"));
  const texts = {};
  for (const element of document.querySelectorAll("script[id^=joblib-texts-]")) {
    Object.assign(texts, parsed(element));
  }
  const listeners = new Map();
  const addressListeners = new Set();
  const parameters = () => new URLSearchParams(location.search);
  const announceAddress = () => addressListeners.forEach((listener) => listener(parameters()));
  window.addEventListener("popstate", announceAddress);
  return {
    ...data,
    texts,
    api: createApi(data),
    text(key, values = {}) {
      return (texts[key] ?? key).replace(/\{(\w+)\}/g, (match, name) =>
        Object.hasOwn(values, name) ? String(values[name]) : match,
      );
    },
    onEvent(type, listener) {
      if (!listeners.has(type)) listeners.set(type, new Set());
      listeners.get(type).add(listener);
      return () => listeners.get(type).delete(listener);
    },
    emit(type, document_) {
      for (const listener of listeners.get(type) ?? []) listener(document_);
      // For modules of the host, whose import of this one could be a second instance of it.
      document.dispatchEvent(new CustomEvent(`joblib:${type}`, { detail: document_ }));
    },
    parameters,
    setAddress(changes, { replace = false } = {}) {
      const changed = parameters();
      for (const [name, value] of Object.entries(changes)) {
        if (value === null || value === undefined) changed.delete(name);
        else changed.set(name, value);
      }
      if (changed.toString() === parameters().toString()) return;
      const query = changed.toString();
      const address = `${location.pathname}${query ? `?${query}` : ""}${location.hash}`;
      history[replace ? "replaceState" : "pushState"](null, "", address);
      announceAddress();
    },
    onAddress(listener) {
      addressListeners.add(listener);
      return () => addressListeners.delete(listener);
    },
  };
}

const context = createContext();
for (const [id, start] of [
  ["joblib-jobs", startJobs],
  ["joblib-tasks", startTasks],
]) {
  // A host may leave a piece out.
  const section = document.getElementById(id);
  if (section) start(section, context);
}
