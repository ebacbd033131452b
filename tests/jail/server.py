"""A web server for tests: HTTP and, with a certificate, HTTPS; says its ports in one line and serves until stdin ends.

usage: server.py [CERTIFICATE KEY]

`/hello` says hello; `/bytes/N` sends N bytes; `/echo` sends back what it was sent; `/hang` never answers.
"""

import http.server
import ssl
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/bytes/"):
            self._send(b"x" * int(self.path.rsplit("/", 1)[1]))
        elif self.path == "/hang":
            time.sleep(60)
        else:
            self._send(f"hello, {self.headers['Host']}".encode())

    def do_POST(self) -> None:
        self._send(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


def serve(context: ssl.SSLContext | None) -> int:
    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        # The handshake is the connection's own thread's to make, at its first read.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main() -> None:
    ports = [serve(None)]
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        ports.append(serve(context))
    print(*ports, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
