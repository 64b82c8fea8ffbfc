// Three ways to receive the events of a room. Each `open` calls `onDocument(document)` for each event
// and `onClose(code)` once when the connection ends by itself; it returns a function that closes it.

const TYPES = ["ready", "reset", "task", "job", "job_retired", "worker", "worker_left"];
// Longer than a server under WSGI tells the browser to wait between two streams (2 s).
const REOPEN_MILLISECONDS = 8_000;
const POLL_MILLISECONDS = 5_000;

function address(path, cursor) {
  const url = new URL(path, location.href);
  if (cursor) url.searchParams.set("cursor", cursor);
  return url;
}

export function openSocket({ socketPath }, cursor, { onDocument, onClose }) {
  const url = address(socketPath, cursor);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("batch", "true");
  const socket = new WebSocket(url);
  // A server of an earlier version sends single documents.
  socket.onmessage = (message) => {
    for (const each of [JSON.parse(message.data)].flat()) onDocument(each);
  };
  socket.onclose = (event) => onClose(event.code);
  return () => {
    socket.onmessage = socket.onclose = null;
    socket.close();
  };
}

/** Server-Sent Events. The browser resumes by itself, with `Last-Event-ID`, a stream that ended. */
export function openStream({ roomPath }, cursor, { onDocument, onClose }) {
  const source = new EventSource(address(`${roomPath}/events`, cursor));
  let timer = null;
  const close = () => {
    clearTimeout(timer);
    source.close();
  };
  const end = () => {
    close();
    onClose(0);
  };
  for (const type of TYPES) {
    source.addEventListener(type, (message) => onDocument(JSON.parse(message.data)));
  }
  source.onopen = () => {
    clearTimeout(timer);
    timer = null;
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) end();
    else timer ??= setTimeout(end, REOPEN_MILLISECONDS);
  };
  return close;
}

/** The lists over and over, where neither of the others comes through: a `reset` each time. */
export function openPolling(context, cursor, { onDocument, onClose, probe }) {
  let timer = null;
  let closed = false;
  async function poll() {
    const answer = await probe();
    if (closed) return;
    if (answer !== "ok") {
      onClose(0);
      return;
    }
    onDocument({ type: "reset" });
    timer = setTimeout(poll, POLL_MILLISECONDS * (0.8 + 0.4 * Math.random()));
  }
  poll();
  return () => {
    closed = true;
    clearTimeout(timer);
  };
}
