"""A package index of a few wheels on the loopback, which wants a password."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER, PASSWORD = "ada", "s3cret-of-the-index"


def wheel(name: str, version: str, files: Mapping[str, str]) -> bytes:
    """A wheel of pure Python with these files."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in whole) + f"{info}/RECORD,,\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in {**whole, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return content.getvalue()


def hash_of(content: bytes) -> str:
    """The hash as a requirements file has it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class PackageIndex:
    """What is served, and what was asked for."""

    def __init__(self, port: int, wheels: Mapping[str, bytes]) -> None:
        self.port, self.wheels, self.asked = port, wheels, list[str]()

    @property
    def url(self) -> str:
        """The address with name and password."""
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}/simple"


@contextmanager
def package_index(wheels: Mapping[str, bytes]) -> Generator[PackageIndex]:
    """The index of these wheels (file name -> content) until the end of the block."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            if self.headers.get("Authorization") != f"Basic {login}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            name = self.path.strip("/").rpartition("/")[2]
            if self.path.startswith("/simple/"):
                files = [file for file in wheels if file.split("-")[0].replace("_", "-") == name]
                body = "".join(f'<a href="/files/{file}">{file}</a>\n' for file in files).encode()
                self._answer(200 if files else 404, body, "text/html")
            else:
                self._answer(200 if name in wheels else 404, wheels.get(name, b""), "application/octet-stream")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = PackageIndex(server.server_address[1], wheels)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def go_module(name: str, version: str, files: Mapping[str, str]) -> tuple[dict[str, bytes], str]:
    """What a module proxy serves of a module, by path, and its lines of go.sum."""
    content = io.BytesIO()
    whole = {f"{name}@{version}/{path}": text for path, text in files.items()}
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in whole.items():
            archive.writestr(path, text)
    place = f"/{name}/@v/{version}"
    served = {
        f"/{name}/@v/list": f"{version}\n".encode(),
        f"{place}.info": f'{{"Version": "{version}", "Time": "2024-01-01T00:00:00Z"}}'.encode(),
        f"{place}.mod": files["go.mod"].encode(),
        f"{place}.zip": content.getvalue(),
    }
    sums = f"{name} {version} {_dirhash(whole)}\n{name} {version}/go.mod {_dirhash({'go.mod': files['go.mod']})}\n"
    return served, sums


def _dirhash(files: Mapping[str, str]) -> str:
    lines = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}\n" for path, text in sorted(files.items()))
    return f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}"


def npm_package(name: str, version: str, files: Mapping[str, str]) -> tuple[dict[str, bytes], str]:
    """What a registry of npm serves of a package, by path, and a package-lock.json of a project that needs it."""
    content = io.BytesIO()
    whole = {"package.json": json.dumps({"name": name, "version": version}), **files}
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in whole.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    sha = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
    one = {"version": version, "resolved": f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz"}
    packages = {
        "": {"name": "sums", "version": "1.0.0", "dependencies": {name: version}},
        f"node_modules/{name}": {**one, "integrity": f"sha512-{sha}"},
    }
    lock = {"name": "sums", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}
    return {f"/{name}/-/{name}-{version}.tgz": content.getvalue()}, json.dumps(lock)


@contextmanager
def served_files(files: Mapping[str, bytes]) -> Generator[tuple[str, list[str]]]:
    """The address at which these files are served by their paths, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
