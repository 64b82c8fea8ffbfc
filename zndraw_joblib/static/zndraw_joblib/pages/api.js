// Requests to the job server's REST API.

import { parseJSON } from "./json.js";

/** The server refused a request. `problem` is its RFC 9457 document, `{title: ...}` without one. */
export class Problem extends Error {
  constructor(status, problem, headers) {
    super(problem.detail || problem.title || String(status));
    this.name = "Problem";
    this.status = status;
    this.problem = problem;
    this.headers = headers;
  }

  /** The last part of the problem's type, such as `job-not-found`; "" for none. */
  get slug() {
    return String(this.problem.type ?? "").split("/").pop().replace("about:blank", "");
  }

  /** The errors with JSON pointers into the body: `[{detail, pointer}]`. */
  get errors() {
    return Array.isArray(this.problem.errors) ? this.problem.errors : [];
  }

  /** Seconds after which the server may accept the request; null if it does not say. */
  get retryAfter() {
    const value = this.headers.get("Retry-After");
    if (!value) return null;
    const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
    return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
  }
}

/** No answer came: the network or the server is down. It is unknown whether the request arrived. */
export class NetworkError extends Error {
  constructor(cause) {
    super(cause.message, { cause });
    this.name = "NetworkError";
  }
}

function cookie(name) {
  for (const part of document.cookie.split("; ")) {
    if (part.startsWith(`${name}=`)) return decodeURIComponent(part.slice(name.length + 1));
  }
  return null;
}

const isProblem = (headers) =>
  (headers.get("Content-Type") ?? "").startsWith("application/problem+json");

async function problemOf(response) {
  let problem = { title: response.statusText || `HTTP ${response.status}` };
  if (isProblem(response.headers)) {
    try {
      problem = JSON.parse(await response.text());
    } catch (error) {
      // A proxy cut the body: the status remains.
      if (error.name === "AbortError") throw error;
    }
  }
  return new Problem(response.status, problem, response.headers);
}

/**
 * @param {{apiPath: string, csrf: {header: string, cookie: string, token: string}}} options
 *   `apiPath` is the path of the API with a slash at its end: `/v1/joblib/`.
 */
export function createApi({ apiPath, csrf }) {
  const listeners = new Set();

  /**
   * The address of a resource. `path` is a path of the server, used as it is, or an array of
   * segments below the API: `url(["tasks", id, "log"], {offset: 0})`. Parameters that are null are
   * left out, arrays are repeated.
   */
  function url(path, parameters = {}) {
    const base = Array.isArray(path) ? apiPath + path.map(encodeURIComponent).join("/") : path;
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      for (const each of [value].flat()) if (each !== null && each !== undefined) query.append(name, each);
    }
    const text = query.toString();
    return text ? `${base}${base.includes("?") ? "&" : "?"}${text}` : base;
  }

  /**
   * Sends a request; `path` as for `url`, `body` any JSON value, `undefined` for none.
   *
   * Resolves to `{status, data, headers}`; `data` is the JSON document, with `parseJSON`'s integers
   * where `exact` is set, null for an empty answer, and a Blob with `as: "blob"`.
   * Rejects with `Problem` for a status from 400, with `NetworkError` where no answer came, and
   * with the browser's AbortError after `signal.abort()`.
   */
  async function request(method, path, body, { headers = {}, signal, exact, as } = {}) {
    const sent = { Accept: "application/json, application/problem+json", ...headers };
    if (as === "blob") sent.Accept = "*/*";
    const options = { method, headers: sent, signal, credentials: "same-origin", cache: "no-store" };
    if (body !== undefined) {
      sent["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    if (!["GET", "HEAD"].includes(method)) {
      // The cookie first, because a sign-in in another tab gives it a new token.
      sent[csrf.header] = cookie(csrf.cookie) ?? csrf.token;
    }
    let response;
    let text;
    try {
      response = await fetch(url(path), options);
      if (response.ok && as === "blob") {
        return { status: response.status, data: await response.blob(), headers: response.headers };
      }
      if (response.ok) text = await response.text();
      else if (response.status !== 304) throw await problemOf(response);
    } catch (error) {
      if (error instanceof Problem) {
        for (const listener of listeners) listener(error);
        throw error;
      }
      if (error.name === "AbortError") throw error;
      throw new NetworkError(error);
    }
    // A host that redirects to its sign-in page answers HTML with 200.
    const type = response.headers.get("Content-Type") ?? "";
    if (text && !type.includes("json")) {
      const problem = new Problem(401, { title: "Signed out" }, response.headers);
      for (const listener of listeners) listener(problem);
      throw problem;
    }
    const parse = exact ? parseJSON : JSON.parse;
    return {
      status: response.status,
      data: text ? parse(text) : null,
      headers: response.headers,
    };
  }

  /** The address of the next page of a list, from its `Link` header; null after the last page. */
  function nextPage(headers) {
    const found = /<([^>]*)>\s*;\s*rel="?next"?/.exec(headers.get("Link") ?? "");
    if (!found) return null;
    // As a path, because a proxy in front may have another origin than the server knows.
    const { pathname, search } = new URL(found[1], location.href);
    return pathname + search;
  }

  return {
    url,
    request,
    nextPage,
    get: (path, options) => request("GET", path, undefined, options),
    post: (path, body, options) => request("POST", path, body, options),
    /** Calls `listener(problem)` for each refused request; returns a function that ends this. */
    onProblem(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
