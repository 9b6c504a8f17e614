"""A web server on this machine that breaks transfers the way real ones do."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and how it is served.

    Attributes:
        content: The true bytes.
        cut_after: Bytes after which each of the next answers breaks off, one entry per answer.
        statuses: Answers to give before the file, one per request.
        etag: Validator, None to send none.
        ranges: Whether ranges are honoured.
        lie_about_range: Answer ranges from another byte than asked for.
        requests: Range header of every request, in order.
        sent: Bytes sent in all.
    """

    content: bytes
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    etag: str | None = '"one"'
    ranges: bool = True
    lie_about_range: bool = False
    requests: list[str | None] = field(default_factory=list)
    sent: int = 0


class Server:
    """Serve one file at ``url`` until closed."""

    def __init__(self, served: Served, name: str = "archive.zip") -> None:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                _answer(self, served)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{name}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    asked = handler.headers.get("Range")
    served.requests.append(asked)
    if served.statuses and (status := served.statuses.pop(0)) != 200:
        handler.send_error(status)
        return
    start = 0
    if asked and served.ranges and handler.headers.get("If-Range") in (None, served.etag):
        start = int(asked.removeprefix("bytes=").rstrip("-"))
    if start >= len(served.content):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        first = start + 1 if served.lie_about_range else start
        handler.send_header("Content-Range", f"bytes {first}-{len(served.content) - 1}/{len(served.content)}")
    handler.send_header("Content-Length", str(len(served.content) - start))
    if served.etag:
        handler.send_header("ETag", served.etag)
    handler.end_headers()
    body = served.content[start:]
    if served.cut_after:
        body = body[: served.cut_after.pop(0)]
    served.sent += len(body)
    handler.wfile.write(body)
    handler.close_connection = True
