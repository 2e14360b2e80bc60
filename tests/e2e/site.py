"""A program in a guest, of the standard library alone: a page, bodies of any size both ways, events, a WebSocket."""

import base64
import hashlib
import http.server
import socket
import struct
import threading
import zlib
from collections.abc import Iterator

PIECE = 1 << 16
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
go_on = threading.Event()


def pieces(size: int) -> Iterator[bytes]:
    """Bytes of which no two parts are alike."""
    for number in range(0, size, PIECE):
        yield (struct.pack(">Q", number) * (PIECE // 8))[: size - number]


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *_: object) -> None:
        pass

    def answer(self, text: str) -> None:
        body = text.encode()
        self.begin("text/html", len(body))
        self.wfile.write(body)

    def begin(self, kind: str, size: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if size is None:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def do_GET(self) -> None:
        kind, _, rest = self.path[1:].partition("/")
        if kind == "down":
            self.begin("application/octet-stream", int(rest))
            for piece in pieces(int(rest)):
                self.wfile.write(piece)
        elif kind == "events":
            go_on.clear()
            self.begin("text/event-stream")
            self.wfile.write(b"data: one\n\n")
            go_on.wait()
            self.wfile.write(b"data: two\n\n")
        elif kind == "go-on":
            go_on.set()
            self.answer("went on")
        elif kind == "echo":
            self.echo()
        else:
            self.answer(f"<h1>hello from {socket.gethostname()}</h1>")

    def do_PUT(self) -> None:
        left, total = int(self.headers["Content-Length"]), 0
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                return
            left, total = left - len(piece), zlib.crc32(piece, total)
        self.answer(str(total))

    def echo(self) -> None:
        """What comes over a WebSocket goes back, until it is closed."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + WEBSOCKET).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2 and head[0] & 15 != 8:
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask, data = self.rfile.read(4), self.rfile.read(size)
            cover = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            data = (int.from_bytes(data, "big") ^ cover).to_bytes(size, "big")
            length = bytes([size]) if size < 126 else b"\x7f" + size.to_bytes(8, "big")
            self.wfile.write(head[:1] + length + data)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    Server(("0.0.0.0", 8080), Site).serve_forever()
