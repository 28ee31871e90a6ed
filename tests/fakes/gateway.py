"""In the gateway's place where only beginnings and endings are tested: it listens, and knows no key.

``ROUNDHOUSE_FAKE_GATEWAY=deaf``: it never answers, so that a start goes on until somebody ends it; ``broken``: it ends
with code 3. What it is asked, and with which headers, stands in ``seen.txt`` in the home.
"""

from __future__ import annotations

import http.server
import os
import sys

from roundhouse.config import paths
from roundhouse.deploy.services import pids


class Answer(http.server.BaseHTTPRequestHandler):
    """200 to everything."""

    def do_GET(self) -> None:
        """Answer."""
        with (paths.home() / "seen.txt").open("a") as seen:
            seen.write(str(self.headers))
        if os.environ.get("ROUNDHOUSE_FAKE_GATEWAY") == "deaf":
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


pids.record("proxy")
with http.server.ThreadingHTTPServer(("127.0.0.1", paths.port()), Answer) as server:
    print("proxy: the last words of the gateway", flush=True)
    if os.environ.get("ROUNDHOUSE_FAKE_GATEWAY") == "broken":
        sys.exit(3)
    server.serve_forever()
