"""A stand-in on a real socket, with a stream of a room's events."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.client.life import LifeServer

ROOM = "/rooms/r/events"
JOB = {
    "id": "j",
    "room_id": "r",
    "full_name": "r:modifiers:Rotate",
    "category": "modifiers",
    "name": "Rotate",
    "worker_count": 1,
    "durable": False,
}


class EventServer(LifeServer):
    """Streams the changes of its tasks as events; the cursor counts the changes.

    Each way of `planned` answers one request for a stream, and the last one all others:

    - ``live`` streams until `drop`.
    - ``once`` ends after the first batch, ``broken`` breaks off then.
    - ``quiet`` sends no more after the beginning, ``buffered`` keeps changes back.
    - ``silent`` sends nothing, ``comments`` comments alone.
    - An `httpx.Response`, or `bytes`, the body of a stream that then ends.

    `streams` has the query and the headers of each request for a stream.
    """

    def __init__(self):
        super().__init__()
        self.planned, self.streams, self.reads = ["live"], [], []
        self.journal, self.open_streams, self.generation = [], 0, 0
        #: Functions to call between the read of a task and the next stream.
        self.before_stream = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.drop()
        self.release()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def change(self, task_id, status=None, **values):
        with self.changed:
            self.journal.append(("task", task_id))
            super().change(task_id, status, **values)

    def publish(self, document):
        """Add another event to the stream."""
        with self.changed:
            self.journal.append(("document", document))
            self.changed.notify_all()

    def drop(self):
        """End all streams, as a server does that ends."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def get(self, path, body, request):
        if path.startswith("/tasks/"):
            self.reads.append(path)
        return super().get(path, body, request)

    def state(self, task_id):
        hidden = {"payload", "result", "unknown"}
        return {k: value for k, value in self.document(task_id).items() if k not in hidden}

    def events(self, start, end, wanted):
        """The events of the changes from a place on, one for each task: its present state."""
        latest = {}
        for number, (kind, value) in enumerate(self.journal[start:end], start + 1):
            key = value if kind == "task" else number
            if kind != "task" or not wanted or value in wanted:
                latest.pop(key, None)
                latest[key] = number, kind, value
        for number, kind, value in latest.values():
            if kind == "task":
                revision = self.revisions.get(value, 1)
                yield {"type": "task", "revision": revision, "task": self.state(value)}, number
            else:
                yield value, number

    def stream(self, split, headers, write):
        """Answer a request for a stream; `write` sends bytes."""
        query = parse_qs(split.query)
        self.streams.append((query, headers))
        way = self.planned.pop(0) if len(self.planned) > 1 else self.planned[0]
        if self.before_stream:
            self.before_stream.pop(0)()
        if isinstance(way, httpx.Response):
            return way
        write(None)
        if isinstance(way, bytes):
            write(way)
            return None
        with self.changed:
            generation = self.generation
            given = headers.get("Last-Event-ID")
            known = given is None or (given.isdigit() and int(given) <= len(self.journal))
            place = int(given) if given and known else len(self.journal)
            self.open_streams += 1
        wanted = query.get("task", [])
        try:
            if way in {"silent", "comments"}:
                while generation == self.generation:
                    with self.changed:
                        self.changed.wait(0.05)
                    if way == "comments":
                        write(b": still here\n\n")
                return None
            write(message({"type": "ready" if known else "reset"}, place))
            if way == "broken":
                raise BrokenPipeError
            if way == "once":
                write(b"retry: 50\n\n")
            while generation == self.generation:
                with self.changed:
                    events = [*self.events(place, len(self.journal), wanted)]
                    place = len(self.journal)
                for document, number in events if way in {"live", "once"} else ():
                    write(message(document, number))
                if way == "once":
                    return None
                with self.changed:
                    self.changed.wait(0.05)
                if way == "live":
                    write(b": still here\n\n")
            return None
        finally:
            self.open_streams -= 1


def message(document, cursor):
    """An event in the form of the stream."""
    cursor = str(cursor)
    data = json.dumps({**document, "cursor": cursor}, ensure_ascii=False)
    return f"event: {document['type']}\nid: {cursor}\ndata: {data}\n\n".encode()


def handler(stand_in):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length)
            split = urlsplit(self.path)
            if split.path.removeprefix("/v1/joblib") == ROOM:
                with suppress(ConnectionError):
                    response = stand_in.stream(split, self.headers, self.write)
                    if response is not None:
                        self.respond(response)
                    else:
                        self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True
                return
            request = httpx.Request(
                self.command,
                f"http://x{self.path}",
                headers=dict(self.headers.items()),
                content=content,
            )
            with suppress(ConnectionError):
                self.respond(stand_in(request))

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def respond(self, response):
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name.lower() not in {"content-length", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def write(self, data):
            if data is None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
            elif data:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def log_message(self, *arguments):
            pass

    return Handler
