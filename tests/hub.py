"""A Hugging Face hub on this machine, for tests."""

import contextlib
import http.server
import threading
import zlib


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub does, from `files`."""

    files: dict[str, bytes]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        content = self.files.get(self.path)
        broken = self.path in self.files and content is None
        self.send_response(400 if broken else 200 if content is not None else 404)
        if content is None and not broken:
            known = any(self.path.rsplit("/", 1)[0] in path for path in self.files)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{zlib.crc32(content or b"")}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def running(home):
    """Gives what the environment of a process is to have, for a hub that keeps files in `home`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home)}
    server.shutdown()
    server.server_close()
