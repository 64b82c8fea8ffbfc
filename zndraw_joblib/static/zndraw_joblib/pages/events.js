// The events of the room: emits them to all parts of the page (`context.emit`), reconnects, and says
// when the page is offline.

import { openPolling, openSocket, openStream } from "./connections.js";
import { element as h } from "./elements.js";

// The best one first. A page goes on to the next where one never delivered though the server answers.
const WAYS = [openSocket, openStream, openPolling];
const SIGNED_OUT = 4401;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;
// After a connection of this length the next delay is the first one again.
const STABLE_MILLISECONDS = 5_000;
// A connection without its first event after this time counts as lost, because a proxy may hold it.
const SILENT_MILLISECONDS = 12_000;
const HIDDEN_MILLISECONDS = 120_000;
// A timer that is this late tells that the computer slept, so connections may be dead unnoticed.
const SLEPT_MILLISECONDS = 45_000;
const BACK_MILLISECONDS = 4_000;

/** Seconds are doubled at each failure, and drawn, so that not all pages come at once. */
function delayAfter(failures) {
  return Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures) * (0.5 + 0.5 * Math.random());
}

/**
 * `line` is the element of role "status" that tells the state. Emits the events, and `reset` for the
 * first connection too, because nothing is known before it.
 */
export function startEvents(context, line) {
  let way = 0;
  let delivered = new Set();
  let cursor = null;
  let failures = 0;
  let openedAt = 0;
  let close = null;
  let retry = null;
  let silence = null;
  let state = "connecting";
  let backTimer = null;

  /** Whether the server answers: "ok", "offline", "signed-out" or "gone". */
  async function probe() {
    try {
      const url = context.api.url(`${context.roomPath}/tasks`, { limit: 1 });
      await context.api.get(url, { signal: AbortSignal.timeout(10_000) });
      return "ok";
    } catch (error) {
      if (error.status === 401) return "signed-out";
      return [403, 404].includes(error.status) ? "gone" : "offline";
    }
  }

  function show(next) {
    if (next === state) return;
    const wasAway = ["offline", "signed-out", "gone"].includes(state);
    state = next;
    clearTimeout(backTimer);
    line.dataset.state = next;
    if (next === "live" && wasAway) {
      line.replaceChildren(context.text("back_online"));
      backTimer = setTimeout(() => line.replaceChildren(), BACK_MILLISECONDS);
    } else if (next === "offline") line.replaceChildren(context.text("offline"));
    else if (next === "signed-out" || next === "gone") {
      const [text, label] = next === "gone" ? ["gone", "reload"] : ["signed_out", "sign_in"];
      // The page's own address, because its view leads to the sign-in page and back.
      const link = h("a", { href: location.href }, context.text(label));
      line.replaceChildren(context.text(text), " ", link);
    } else line.replaceChildren();
  }

  function disconnect() {
    clearTimeout(retry);
    clearTimeout(silence);
    close?.();
    close = null;
  }

  function connect() {
    disconnect();
    openedAt = Date.now();
    let isFirst = true;
    const mine = {
      probe,
      onDocument(document_) {
        if (typeof document_.cursor === "string") cursor = document_.cursor;
        if (isFirst) {
          isFirst = false;
          clearTimeout(silence);
          const known = delivered.size > 0;
          delivered.add(way);
          show("live");
          if (!known && document_.type === "ready") context.emit("reset", document_);
        }
        context.emit(document_.type, document_);
      },
      onClose(code) {
        if (close === own) lost(code);
      },
    };
    silence = setTimeout(() => {
      own?.();
      if (close === own) lost(0);
    }, SILENT_MILLISECONDS);
    const own = WAYS[way](context, cursor, mine);
    close = own;
  }

  async function lost(code) {
    disconnect();
    if (delivered.has(way) && Date.now() - openedAt > STABLE_MILLISECONDS) failures = 0;
    const mark = (close = () => {});
    const answer = code === SIGNED_OUT ? "signed-out" : await probe();
    // Connected or closed meanwhile by another cause.
    if (close !== mark) return;
    close = null;
    if (answer === "signed-out" || answer === "gone") {
      show(answer);
      return;
    }
    if (answer === "ok" && !delivered.has(way) && way < WAYS.length - 1) {
      way += 1;
      connect();
      return;
    }
    if (answer === "offline" || failures > 1) show("offline");
    retry = setTimeout(connect, delayAfter(failures));
    failures += 1;
  }

  const isConnected = () => close !== null && state === "live";
  let hiddenTimer = null;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(disconnect, HIDDEN_MILLISECONDS);
    else if (!isConnected()) connect();
  });
  window.addEventListener("online", connect);
  window.addEventListener("offline", () => {
    disconnect();
    show("offline");
  });
  window.addEventListener("focus", () => {
    if (state === "signed-out" || state === "gone") connect();
  });
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
  let lastTick = Date.now();
  setInterval(() => {
    if (Date.now() - lastTick > SLEPT_MILLISECONDS && !document.hidden) connect();
    lastTick = Date.now();
  }, 5_000);
  context.api.onProblem((problem) => {
    if (problem.status === 401 && state !== "signed-out") {
      disconnect();
      show("signed-out");
    }
  });
  connect();
}
