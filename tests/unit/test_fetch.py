"""Downloads from a real server on this machine: whole or resumed, verified, from one mirror or another."""

import hashlib
import io
import re
import resource
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labo_fairseq.data import archives
from labo_fairseq.data.archives import Archive, fetch
from labo_fairseq.errors import UserError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``files``; a path in ``cuts`` breaks off after so many bytes, as often as the list has numbers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/a.tgz": CONTENT}
        self.redirects = {}
        self.cuts = {}
        self.ranges = True
        self.media_type = "application/gzip"
        self.requests = []  # path, Range

    def url(self, path="/a.tgz"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append((self.path, asked))
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            return self.end_headers()
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.media_type)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cuts = server.cuts.get(self.path)
        self.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("LABO_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


def archive(*urls, **known):
    return Archive("corpus/a.tgz", list(urls), **known)


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


KNOWN = {"size": len(CONTENT), "sha256": SHA256}


@pytest.mark.parametrize("known", [KNOWN, {"md5": MD5}, {}])
def test_fetched_once(server, tmp_path, known, capsys):
    for _ in range(2):
        path = fetch(archive(server.url(), **known), tmp_path)
        assert path == tmp_path / "corpus" / "a.tgz"
        assert path.read_bytes() == CONTENT
    assert server.requests == [("/a.tgz", None)]
    assert left(tmp_path) == ["a.tgz"]
    output = capsys.readouterr()
    assert output.out == ""
    assert "corpus/a.tgz: 100%" in output.err


@pytest.mark.parametrize("known", [KNOWN, {}])
def test_cut_download_continues_in_the_same_call(server, tmp_path, known):
    server.cuts["/a.tgz"] = [200_000, 100_000]
    assert fetch(archive(server.url(), **known), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a.tgz", None), ("/a.tgz", "bytes=200000-"), ("/a.tgz", "bytes=300000-")]


def test_cut_download_continues_in_the_next_call(server, tmp_path):
    server.cuts["/a.tgz"] = [200_000, 0]
    with pytest.raises(UserError, match=r"127\.0\.0\.1: broke off at 200000 of 512000 bytes"):
        fetch(archive(server.url(), **KNOWN), tmp_path)
    assert left(tmp_path) == [f".a.tgz.{SHA256[:8]}.part"]
    server.requests.clear()
    assert fetch(archive(server.url(), **KNOWN), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a.tgz", "bytes=200000-")]
    assert left(tmp_path) == ["a.tgz"]


def test_cut_download_continues_at_another_mirror(server, tmp_path):
    server.files["/b.tgz"] = CONTENT
    server.cuts["/a.tgz"] = [200_000, 0]
    assert fetch(archive(server.url(), server.url("/b.tgz"), **KNOWN), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("/b.tgz", "bytes=200000-")


def test_two_mirrors_are_not_mixed_without_a_checksum(server, tmp_path):
    server.files["/b.tgz"] = CONTENT
    server.cuts["/a.tgz"] = [200_000, 0]
    fetch(archive(server.url(), server.url("/b.tgz")), tmp_path)
    assert server.requests[-1] == ("/b.tgz", None)


def test_killed_download_is_resumed(server, tmp_path):
    server.files["/a.tgz"] = big = CONTENT * 100
    program = "import sys; from pathlib import Path; from labo_fairseq.data.archives import fetch; "
    program += "from labo_fairseq.data.archives import Archive; "
    program += "fetch(Archive('corpus/a.tgz', [sys.argv[1]]), Path(sys.argv[2]))"
    blocked = server.url("/a.tgz")
    with subprocess.Popen([sys.executable, "-c", program, blocked, str(tmp_path)], stderr=subprocess.DEVNULL) as child:
        while not any(path.stat().st_size for path in tmp_path.rglob("*.part")) and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    assert fetch(archive(blocked), tmp_path).read_bytes() == big
    assert left(tmp_path) == ["a.tgz"]


def test_server_without_ranges(server, tmp_path):
    server.ranges = False
    server.cuts["/a.tgz"] = [200_000]
    assert fetch(archive(server.url(), **KNOWN), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"x" * 1000, b"x" * 600_000, CONTENT])
def test_bad_leftover_is_replaced(server, tmp_path, leftover):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / f".a.tgz.{SHA256[:8]}.part").write_bytes(leftover)
    assert fetch(archive(server.url(), **KNOWN), tmp_path).read_bytes() == CONTENT
    assert left(tmp_path) == ["a.tgz"]


def test_next_mirror(server, tmp_path):
    dead = "http://127.0.0.1:9/a.tgz"
    server.files["/other.tgz"] = CONTENT[:-1] + b"x"
    mirrors = [dead, server.url("/absent.tgz"), server.url("/other.tgz"), server.url()]
    assert fetch(archive(*mirrors, **KNOWN), tmp_path).read_bytes() == CONTENT


def test_no_mirror(server, tmp_path):
    server.files["/short.tgz"] = CONTENT[:-1]
    server.files["/other.tgz"] = CONTENT[:-1] + b"x"
    mirrors = ["http://127.0.0.1:9/a.tgz", *map(server.url, ("/absent.tgz", "/short.tgz", "/other.tgz"))]
    with pytest.raises(UserError) as error:
        fetch(archive(*mirrors, **KNOWN), tmp_path)
    other = hashlib.sha256(server.files["/other.tgz"]).hexdigest()
    assert str(error.value) == (
        "cannot download corpus/a.tgz (127.0.0.1: Connection refused; 127.0.0.1: HTTP 404 Not Found; 127.0.0.1: offers "
        f"511999 bytes, expected 512000; 127.0.0.1: what it serves has sha256 {other}, expected {SHA256}): get it from "
        "http://127.0.0.1:9/a.tgz on a machine that can, save it as DIR/corpus/a.tgz and say --archive-dir DIR, or set "
        "LABO_DATA=DIR"
    )
    assert left(tmp_path) == []


def test_web_page_is_no_archive(server, tmp_path):
    server.media_type = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="answers with a web page"):
        fetch(archive(server.url()), tmp_path)


def test_redirections_lead_to_servers_not_to_files(server, tmp_path):
    server.redirects["/moved.tgz"] = server.url()
    assert fetch(archive(server.url("/moved.tgz"), **KNOWN), tmp_path / "cache").read_bytes() == CONTENT
    (tmp_path / "secret").write_bytes(CONTENT)
    server.redirects["/file.tgz"] = (tmp_path / "secret").as_uri()
    with pytest.raises(UserError, match=r"Redirection to url 'file:.*' is not allowed"):
        fetch(archive(server.url("/file.tgz"), **KNOWN), tmp_path / "other")
    assert left(tmp_path / "other") == []


def test_archive_without_an_address(tmp_path):
    with pytest.raises(
        UserError, match=r"cannot download corpus/a\.tgz \(no address is known\): if you have it, save it"
    ):
        fetch(archive(), tmp_path)


def test_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="timed out"):
        fetch(archive(f"http://127.0.0.1:{silent.getsockname()[1]}/a.tgz"), tmp_path)


def test_damaged_cache_is_fetched_again(server, tmp_path, capsys):
    fetch(archive(server.url(), **KNOWN), tmp_path).write_bytes(b"damaged")
    assert fetch(archive(server.url(), **KNOWN), tmp_path).read_bytes() == CONTENT
    assert "a.tgz has 7 bytes, expected 512000: getting it again" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["corpus/a.tgz", "a.tgz"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_own_archive_comes_first(server, tmp_path, monkeypatch, place, by_variable):
    own = tmp_path / "own" / place
    own.parent.mkdir(parents=True)
    own.write_bytes(CONTENT)
    (tmp_path / "cache" / "corpus").mkdir(parents=True)
    (tmp_path / "cache" / "corpus" / "a.tgz").write_bytes(CONTENT)
    if by_variable:
        monkeypatch.setenv("LABO_DATA", str(tmp_path / "own"))
    given = None if by_variable else tmp_path / "own"
    assert fetch(archive(server.url(), **KNOWN), tmp_path / "cache", given) == own
    own.unlink()
    assert fetch(archive(server.url(), **KNOWN), tmp_path / "cache", given) == tmp_path / "cache" / "corpus" / "a.tgz"
    assert server.requests == []


def test_option_comes_before_variable(tmp_path, monkeypatch):
    for name in ("option", "variable"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tgz").write_bytes(CONTENT)
    monkeypatch.setenv("LABO_DATA", str(tmp_path / "variable"))
    assert fetch(archive(), tmp_path / "cache", tmp_path / "option") == tmp_path / "option" / "a.tgz"


def test_wrong_own_archive(server, tmp_path):
    (tmp_path / "a.tgz").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(
        UserError, match=rf"{tmp_path}/a\.tgz has sha256 \w+, expected {SHA256}: put the published file at"
    ):
        fetch(archive(server.url(), **KNOWN), tmp_path / "cache", tmp_path)
    assert not (tmp_path / "cache").exists()
    assert server.requests == []


def test_archive_inside_another(server, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("release/a.tgz")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    server.files["/release.tgz"] = packed.getvalue()
    container = Archive("corpus/release.tgz", [server.url("/release.tgz")])
    inner = Archive("corpus/a.tgz", inside=container, member="release/a.tgz")
    assert fetch(inner, tmp_path).read_bytes() == CONTENT
    assert left(tmp_path) == ["a.tgz", "release.tgz"]
    (tmp_path / "corpus" / "release.tgz").unlink()
    fetch(inner, tmp_path)
    assert len(server.requests) == 1
    absent = Archive("corpus/b.tgz", inside=container, member="release/b.tgz")
    with pytest.raises(UserError, match=r"release\.tgz holds no release/b\.tgz"):
        fetch(absent, tmp_path)
    assert left(tmp_path) == ["a.tgz", "release.tgz"]


def test_another_archive_is_not_opened(server, tmp_path, monkeypatch):
    """Neither what a mirror serves, nor a file of the user's, nor one that was put into the cache."""

    def opened(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr("labo_fairseq.data.archives.open_member", opened)
    container = Archive("corpus/release.tgz", [server.url("/release.tgz")], sha256=SHA256)
    inner = Archive("corpus/a.tgz", inside=container, member="release/a.tgz")
    server.files["/release.tgz"] = CONTENT[::-1]
    with pytest.raises(UserError, match=r"cannot download corpus/release\.tgz"):
        fetch(inner, tmp_path / "cache")
    (tmp_path / "release.tgz").write_bytes(CONTENT[::-1])
    with pytest.raises(UserError, match=r"release\.tgz has sha256 \w+, expected"):
        fetch(inner, tmp_path / "cache", tmp_path)
    (tmp_path / "cache" / "corpus").mkdir(parents=True)
    (tmp_path / "cache" / "corpus" / "release.tgz").write_bytes(CONTENT[::-1])
    with pytest.raises(UserError, match=r"cannot download corpus/release\.tgz"):
        fetch(inner, tmp_path / "cache")


def test_disk_that_cannot_be_written_is_no_fault_of_the_mirror(server, tmp_path):
    (tmp_path / "corpus").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write .*/corpus/a\.tgz: File exists"):
        fetch(archive(server.url(), server.url()), tmp_path)


def test_full_disk_is_no_fault_of_the_mirror(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*/corpus/a\.tgz: File too large"):
            fetch(archive(server.url(), server.url(), **KNOWN), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(server.requests) == 1
    assert fetch(archive(server.url(), **KNOWN), tmp_path).read_bytes() == CONTENT
