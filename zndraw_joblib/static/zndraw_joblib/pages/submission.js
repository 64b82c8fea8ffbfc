// Submits a task once, however often the user tries, and tells refusals in words.

import { NetworkError, Problem } from "./api.js";
import { element, randomId } from "./elements.js";

/** The texts of refusals that say more than the server's own; others are the server's. */
function inWords(text, problem) {
  const { status, retryAfter } = problem;
  if (status === 401) return text("refused.signedOut");
  if (status === 404) return text("refused.gone");
  if (status === 413) return `${text("refused.tooLarge")} ${problem.message}`;
  if (status === 429) {
    const wait = retryAfter ? text("refused.wait", { seconds: retryAfter }) : text("refused.later");
    return `${problem.message} ${wait}`;
  }
  if (status >= 500) return text("refused.failed");
  return problem.message;
}

/**
 * Submissions of a job. Exactly one handler is called for each: `accepted(task)`,
 * `refused(message, errors)` for errors with pointers, `failed(message, link)` else.
 */
export function createSubmission(context, job, handlers) {
  const { api, text } = context;
  const path = `${context.roomPath}/tasks/${encodeURIComponent(job.full_name)}`;
  let busy = false;
  // The key of a body whose answer is not known: sent again with it, it makes no second task.
  let open = { body: null, key: null };

  async function send(body) {
    busy = true;
    const content = JSON.stringify(body);
    if (open.body !== content) open = { body: content, key: randomId() };
    try {
      const headers = { "Idempotency-Key": open.key };
      const { data } = await api.post(path, body, { headers });
      open = { body: null, key: null };
      handlers.accepted(data);
    } catch (error) {
      if (error instanceof NetworkError) {
        handlers.failed(text(navigator.onLine ? "refused.unreachable" : "refused.offline"), null);
      } else if (error instanceof Problem) {
        // A 5xx may come from a proxy while the server goes on: the key stays.
        if (error.status < 500) open = { body: null, key: null };
        const message = inWords(text, error);
        if (error.errors.length) handlers.refused(message, error.errors);
        else handlers.failed(message, error.status === 401 ? signIn() : null);
      } else throw error;
    } finally {
      busy = false;
    }
  }

  function signIn() {
    const here = location.pathname + location.search;
    const joined = context.loginPath.includes("?") ? "&" : "?";
    const href = `${context.loginPath}${joined}next=${encodeURIComponent(here)}`;
    return element("a", { href }, text("refused.signIn"));
  }

  return { send, busy: () => busy };
}
