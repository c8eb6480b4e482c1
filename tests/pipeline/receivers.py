"""What a run writes to when it ends, as small real servers of this machine: a mail server (SMTP) and a web server."""

import contextlib
import email
import email.policy
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from email.message import EmailMessage


class _Mailbox(socketserver.StreamRequestHandler):
    """One SMTP conversation (RFC 5321): as much as takes one mail."""

    def handle(self) -> None:
        self._say("220 test")
        while line := self.rfile.readline().decode().strip():
            if line == "DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(b"".join(one.removeprefix(b".") if one.startswith(b"..") else one for one in lines))
                self._say("250 taken")
            elif line == "QUIT":
                return self._say("221 bye")
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class _Hook(http.server.BaseHTTPRequestHandler):
    """Keeps [address, JSON] of what is posted."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"what the server says")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _served(handler: type, status: int) -> Iterator[socketserver.TCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.received, server.status, server.daemon_threads = [], status, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def mail_server() -> contextlib.AbstractContextManager:
    """A mail server; ``received`` has the mails as bytes."""
    return _served(_Mailbox, 250)


def web_server(status: int = 200) -> contextlib.AbstractContextManager:
    """A web server that answers with ``status``; ``received`` has [address, JSON] per message."""
    return _served(_Hook, status)


def parsed(mail: bytes) -> EmailMessage:
    """A mail with its parts."""
    return email.message_from_bytes(mail, policy=email.policy.default)
