"""Downloads from a server on the loopback address that does all that servers do wrong."""

import collections
import contextlib
import dataclasses
import email.utils
import functools
import hashlib
import http.server
import io
import json
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from linknet_jax.data.public import fetch as fetch_module
from linknet_jax.data.public.download import download
from linknet_jax.data.public.locations import Item, choose, describe, load_locations, readable

DATA = random.Random(0).randbytes(400_000)
Usage = collections.namedtuple("Usage", "total used free")


@dataclasses.dataclass
class Page:
    """What the server does with one path.

    Attributes:
      data, etag: the file; a weak or no tag is possible.
      date: Last-Modified.
      drops: how many answers end after `after` bytes, the connection with them.
      ranges, if_range: whether Range and If-Range are heeded.
      answers: (status, headers) given before anything else, each once.
      length: Content-Length, if not the true one; "" = none is sent.
      kind, encoding: Content-Type, Content-Encoding.
      delay: seconds between two pieces of the body.
    """

    data: bytes = DATA
    etag: str | None = '"1"'
    date: str | None = None
    drops: int = 0
    after: int = 100_000
    ranges: bool = True
    if_range: bool = True
    answers: list = dataclasses.field(default_factory=list)
    length: str | None = None
    kind: str = "application/octet-stream"
    encoding: str | None = None
    delay: float = 0.0
    requests: list = dataclasses.field(default_factory=list)


class Pages(collections.defaultdict):
    url: str


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        page = self.server.pages[self.path]
        page.requests.append(dict(self.headers))
        if page.answers:
            status, headers = page.answers.pop(0)
            return self.head(status, headers | {"Content-Length": "0"})
        begin = self.begin(page)
        body = page.data[begin:]
        headers = {"Content-Length": page.length or str(len(body)), "Content-Type": page.kind}
        headers |= {"ETag": page.etag, "Last-Modified": page.date}
        headers["Content-Encoding"] = page.encoding
        if page.length == "":
            del headers["Content-Length"]
        if begin:
            size = len(page.data)
            if begin >= size:
                return self.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        if page.drops:
            page.drops -= 1
            body = body[: page.after]
        self.head(206 if begin else 200, headers)
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 20_000):
                time.sleep(page.delay)
                self.wfile.write(body[start : start + 20_000])

    def begin(self, page):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (page.etag, page.date)
        return int(asked[1]) if asked and page.ranges and (same or not page.if_range) else 0

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def pages():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.pages = Pages(Page)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.pages.url = f"http://127.0.0.1:{server.server_port}"
        yield server.pages
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch_module, "TIMEOUT", (2.0, 0.5))


def item(pages, *paths, data=DATA, known=True, **changes):
    """A file of one or several mirrors; its size and checksum are known unless said otherwise."""
    facts = {
        "name": "group/part",
        "file": "group/file.bin",
        "urls": tuple(pages.url + path for path in paths or ["/a"]),
        "bytes": len(data) if known else None,
        "sha256": hashlib.sha256(data).hexdigest() if known else None,
        "licence": "CC0",
        "unzip": None,
    }
    return Item(**(facts | changes))


def get(folder, *items, attempts=3):
    locations = {one.name: one for one in items}
    download(list(locations), folder, locations, attempts=attempts, pause=0.001)
    return folder / items[0].file


def assert_only(target):
    """The finished file, and nothing unfinished beside it."""
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


# One file from one address.


def test_a_file_comes_whole_and_its_checksum_is_told(pages, tmp_path, capsys):
    target = get(tmp_path, item(pages, known=False))
    assert target.read_bytes() == DATA
    assert hashlib.sha256(DATA).hexdigest() in capsys.readouterr().out
    assert pages["/a"].requests[0]["Accept-Encoding"] == "identity"
    assert_only(target)


@pytest.mark.parametrize("known", [True, False])
def test_dropped_connections_are_resumed_beyond_the_number_of_attempts(pages, tmp_path, known):
    page = pages["/a"] = Page(drops=3, after=100_000)
    assert get(tmp_path, item(pages, known=known), attempts=2).read_bytes() == DATA
    begins = [int(r["Range"][6:-1]) for r in page.requests[1:]]
    assert begins == sorted(begins) and begins[0] > 50_000 and begins[-1] > 200_000
    assert all(request["If-Range"] == '"1"' for request in page.requests[1:])


def test_a_server_that_always_drops_is_given_up(pages, tmp_path):
    page = pages["/a"] = Page(drops=99, ranges=False)
    with pytest.raises(ValueError, match=r"/a: the connection failed.*without progress: 3"):
        get(tmp_path, item(pages))
    assert len(page.requests) == 3


def test_ignored_range_starts_over(pages, tmp_path):
    pages["/a"] = Page(drops=2, ranges=False)
    assert get(tmp_path, item(pages, known=False)).read_bytes() == DATA


@pytest.mark.parametrize("page", [Page(etag=None), Page(etag='W/"1"')])
def test_nothing_is_resumed_that_the_server_cannot_name(pages, tmp_path, page):
    pages["/a"] = dataclasses.replace(page, drops=1, requests=[])
    assert get(tmp_path, item(pages, known=False)).read_bytes() == DATA
    assert not any("Range" in request for request in pages["/a"].requests)


def test_a_date_names_a_version_too(pages, tmp_path):
    date = email.utils.formatdate(0, usegmt=True)
    pages["/a"] = Page(etag='W/"1"', date=date, drops=1)
    assert get(tmp_path, item(pages, known=False)).read_bytes() == DATA
    assert pages["/a"].requests[1]["If-Range"] == date


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("size", [400_000, 300_000])
def test_a_file_that_changed_meanwhile_is_never_mixed(pages, tmp_path, if_range, size):
    new = random.Random(1).randbytes(size)
    pages["/a"] = Page(drops=99)
    with pytest.raises(ValueError, match="run again later"):
        get(tmp_path, item(pages, known=False), attempts=1)
    assert (tmp_path / "group/file.bin.part").stat().st_size > 50_000
    pages["/a"] = Page(data=new, etag='"2"', if_range=if_range)
    assert get(tmp_path, item(pages, known=False)).read_bytes() == new


def test_a_change_of_size_is_seen_without_a_tag(pages, tmp_path):
    pages["/a"] = Page(drops=99)
    with pytest.raises(ValueError, match="run again later"):
        get(tmp_path, item(pages, known=False), attempts=1)
    pages["/a"] = Page(data=DATA[:300_000], etag=None, if_range=False)
    assert get(tmp_path, item(pages, known=False)).read_bytes() == DATA[:300_000]
    assert len(pages["/a"].requests) == 2


def test_a_part_beyond_the_end_is_dropped(pages, tmp_path):
    part = tmp_path / "group/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 500_000)
    origin = {"url": pages.url + "/a", "validator": '"1"', "bytes": None}
    part.with_name("file.bin.part.json").write_text(json.dumps(origin))
    target = get(tmp_path, item(pages, known=False))
    assert target.read_bytes() == DATA
    assert "Range" in pages["/a"].requests[0] and "Range" not in pages["/a"].requests[1]
    assert_only(target)


def test_a_complete_part_needs_no_request(pages, tmp_path):
    part = tmp_path / "group/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(DATA)
    origin = {"url": pages.url + "/a", "validator": '"1"', "bytes": len(DATA)}
    part.with_name("file.bin.part.json").write_text(json.dumps(origin))
    assert get(tmp_path, item(pages)).read_bytes() == DATA
    assert not pages["/a"].requests


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"url": 3, "validator": null}', "\udcff"])
def test_a_part_of_unknown_origin_is_not_continued(pages, tmp_path, state):
    part = tmp_path / "group/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    part.with_name("file.bin.part.json").write_bytes(state.encode("utf-8", "surrogateescape"))
    assert get(tmp_path, item(pages, known=False)).read_bytes() == DATA


def test_a_wrong_length_is_not_believed(pages, tmp_path):
    pages["/a"] = Page(length=str(len(DATA) + 10))
    with pytest.raises(ValueError, match="offers 400010 bytes instead of 400000"):
        get(tmp_path, item(pages))
    with pytest.raises(ValueError, match="/a: "):
        get(tmp_path, item(pages, known=False))
    assert not (tmp_path / "group/file.bin").exists()


def test_a_length_too_short_is_seen_by_the_checksum(pages, tmp_path):
    pages["/a"] = Page(length="1000")
    with pytest.raises(ValueError, match=r"has sha256 .* instead of"):
        get(tmp_path, item(pages, bytes=None))


def test_a_body_without_length_comes_whole(pages, tmp_path):
    pages["/a"] = Page(length="", drops=1)
    assert get(tmp_path, item(pages)).read_bytes() == DATA


def test_busy_servers_are_asked_again_when_they_say(pages, tmp_path, monkeypatch):
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    answers = [(503, {"Retry-After": "7"}), (429, {"Retry-After": soon}), (500, {})]
    answers += [(502, {"Retry-After": "nonsense"}), (503, {"Retry-After": "99999"})]
    pages["/a"] = Page(answers=answers)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert get(tmp_path, item(pages), attempts=6).read_bytes() == DATA
    assert pauses[0] == 7 and 28 < pauses[1] <= 30 and pauses[4] == 300
    assert pauses[2:4] == [0.004, 0.008]


def test_a_silent_server_is_asked_again(pages, tmp_path):
    page = pages["/a"] = Page(delay=1.0)
    with pytest.raises(ValueError, match=r"/a: the connection failed.*[Tt]imed out"):
        get(tmp_path, item(pages), attempts=2)
    assert len(page.requests) == 2


def test_a_slow_server_is_waited_for(pages, tmp_path):
    pages["/a"] = Page(delay=0.05)
    assert get(tmp_path, item(pages)).read_bytes() == DATA
    assert len(pages["/a"].requests) == 1


def test_nobody_listens(tmp_path, pages):
    dead = item(pages, urls=("http://127.0.0.1:9/x",))
    with pytest.raises(ValueError, match=r"127.0.0.1:9/x: the connection failed"):
        get(tmp_path, dead)


# Mirrors and checks.


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Page(answers=[(404, {})]), "HTTP 404 Not Found"),
        (Page(answers=[(403, {})]), "HTTP 403 Forbidden"),
        (Page(answers=[(503, {})] * 3), "HTTP 503"),
        (Page(answers=[(206, {})]), "HTTP 206"),
        (Page(encoding="gzip"), "another encoding"),
        (Page(data=DATA[:-1] + b"x"), "has sha256 .* instead of"),
        (Page(data=DATA[:-1]), "offers 399999 bytes instead of 400000"),
        (Page(data=b"<html>log in", kind="text/html; charset=utf-8"), "a web page"),
        (Page(answers=[(301, {"Location": "/a"})] * 99), "redirects"),
    ],
)
def test_the_next_mirror_is_tried(pages, tmp_path, page, said):
    answers, body = list(page.answers), page.data
    pages["/a"], pages["/b"] = page, Page()
    target = get(tmp_path, item(pages, "/a", "/b"))
    assert target.read_bytes() == DATA and len(pages["/b"].requests) == 1
    assert_only(target)
    target.unlink()
    pages["/a"] = Page(data=body, answers=answers, kind=page.kind, encoding=page.encoding)
    message = (
        f"group/part: no mirror gave the file:\n.*/a: .*{said}.*\n.*run again later.*add a mir"
    )
    with pytest.raises(ValueError, match=message):
        get(tmp_path, item(pages, "/a"))
    assert not target.exists()


def test_the_part_of_another_mirror_is_not_continued(pages, tmp_path):
    pages["/a"], pages["/b"] = Page(drops=99, after=300_000), Page(drops=3, after=80_000)
    pages["/a"].ranges = False
    assert get(tmp_path, item(pages, "/a", "/b"), attempts=2).read_bytes() == DATA
    assert "Range" not in pages["/b"].requests[0] and "Range" in pages["/b"].requests[1]


def test_a_file_on_disk_is_a_mirror(pages, tmp_path):
    source = tmp_path / "a source.bin"
    source.write_bytes(DATA)
    target = get(tmp_path / "out", item(pages, urls=(source.as_uri(),)))
    assert target.read_bytes() == DATA and source.exists()
    with pytest.raises(ValueError, match="there is no such file"):
        get(tmp_path / "out2", item(pages, urls=((tmp_path / "none").as_uri(),)))


def test_no_link_is_told_with_the_note(pages, tmp_path):
    with pytest.raises(ValueError, match=r"no link is known;.*file\.bin by hand \(ask them\)"):
        get(tmp_path, item(pages, urls=(), note="ask them"))


def test_finished_files_are_kept(pages, tmp_path):
    target = get(tmp_path, item(pages))
    assert get(tmp_path, item(pages)) == target and len(pages["/a"].requests) == 1
    target.write_bytes(DATA[:-1] + b"x")
    assert get(tmp_path, item(pages)).read_bytes() == DATA
    assert len(pages["/a"].requests) == 2
    target.write_bytes(b"mine")
    assert get(tmp_path, item(pages, known=False)).read_bytes() == b"mine"


def test_a_failure_does_not_stop_the_others(pages, tmp_path):
    pages["/a"] = Page(answers=[(404, {})])
    other = item(pages, "/b", name="group/other", file="group/other.bin")
    with pytest.raises(ValueError, match="group/part") as error:
        get(tmp_path, item(pages), other)
    assert "group/other" not in str(error.value)
    assert (tmp_path / "group/other.bin").read_bytes() == DATA


def test_a_killed_process_is_continued(pages, tmp_path):
    page = pages["/a"] = Page(delay=0.03)
    program = f"""
from linknet_jax.data.public.download import download
from linknet_jax.data.public.locations import Item
item = {item(pages)!r}
download([item.name], {str(tmp_path)!r}, {{item.name: item}})
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    part = tmp_path / "group/file.bin.part"
    deadline = time.time() + 15
    while time.time() < deadline and (not part.exists() or part.stat().st_size < 100_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 100_000 <= part.stat().st_size < len(DATA)
    assert get(tmp_path, item(pages)).read_bytes() == DATA
    assert int(page.requests[-1]["Range"][6:-1]) >= 100_000


# Room on the disk.


def limit(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, free))


def test_too_little_disk_is_told_before_anything_comes(pages, tmp_path, monkeypatch):
    limit(monkeypatch, 150_000)
    with pytest.raises(ValueError, match=r"400.00 kB more, 150.00 kB are free, 250.00 kB are miss"):
        get(tmp_path, item(pages))
    assert not pages["/a"].requests
    with pytest.raises(ValueError, match=r"/a needs .* 250.00 kB are missing"):
        get(tmp_path, item(pages, known=False))
    assert not (tmp_path / "group/file.bin").exists()
    limit(monkeypatch, 400_000)
    pages["/a"].drops = 1
    with pytest.raises(ValueError, match="run again later"):
        get(tmp_path, item(pages), attempts=1)
    limit(monkeypatch, 400_000 - (tmp_path / "group/file.bin.part").stat().st_size)
    assert get(tmp_path, item(pages)).read_bytes() == DATA


def test_unpacking_needs_room_as_well(pages, tmp_path, monkeypatch):
    archive = zipped({"a.txt": b"0" * 300_000})
    pages["/a"] = Page(data=archive)
    limit(monkeypatch, 200_000)
    with pytest.raises(ValueError, match=r"what group/file.bin holds needs 300.00 kB"):
        get(tmp_path, item(pages, data=archive, unzip="out"))
    assert not (tmp_path / "out").exists()
    limit(monkeypatch, 2 * len(archive) - 1)
    with pytest.raises(ValueError, match="everything asked for needs"):
        get(tmp_path / "x", item(pages, data=archive, unzip="out"))


def test_a_disk_that_fails_is_an_error_of_that_file(pages, tmp_path):
    (tmp_path / "group").write_text("a file, no folder")
    with pytest.raises(ValueError, match="group/part: cannot write"):
        get(tmp_path, item(pages))
    with pytest.raises(ValueError, match=r"--dir .* cannot be made"):
        get(tmp_path / "group", item(pages))
    with pytest.raises(ValueError, match="must be a local folder"):
        download(["group"], "gs://bucket", {"group/part": item(pages)})


# Archives.


def unpack(pages, folder, archive, **changes):
    pages["/a"] = Page(data=archive)
    get(folder, item(pages, data=archive, unzip="out", **changes))
    found = (folder / "out").rglob("*")
    return {str(x.relative_to(folder / "out")): x.read_bytes() for x in found if x.is_file()}


def test_an_archive_is_unpacked_once(pages, tmp_path, capsys):
    members = {"VG_100K/1.jpg": b"one", "VG_100K/2.jpg": b"", "ünï.txt": b"three"}
    archive = zipped(members | {"VG_100K/": b"", "__MACOSX/VG_100K/._1.jpg": b"junk"})
    assert unpack(pages, tmp_path, archive) == members
    (tmp_path / "out/VG_100K/1.jpg").write_bytes(b"")
    assert unpack(pages, tmp_path, archive) == members
    printed = capsys.readouterr().out
    assert "3 new files" in printed and "1 new files" in printed
    assert sorted(x.name for x in (tmp_path / "group").iterdir()) == ["file.bin"]


def test_folders_of_an_archive_are_dropped(pages, tmp_path):
    archive = zipped({"a/1.jpg": b"one", "b/c/2.jpg": b"two"})
    assert unpack(pages, tmp_path, archive, flatten=True) == {"1.jpg": b"one", "2.jpg": b"two"}
    with pytest.raises(ValueError, match=r"two members would become '1.jpg'"):
        unpack(pages, tmp_path / "x", zipped({"a/1.jpg": b"", "b/1.jpg": b""}), flatten=True)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:evil"])
@pytest.mark.parametrize("flatten", [True, False])
def test_members_outside_the_folder_are_refused(pages, tmp_path, name, flatten):
    archive = zipped({"good.txt": b"good", name: b"evil"})
    with pytest.raises(ValueError, match=r"member .*evil.* lies outside.*http://127.*/a"):
        unpack(pages, tmp_path / "deep/er", archive, flatten=flatten)
    assert not [x for x in tmp_path.rglob("*") if "evil" in x.name or "good" in x.name]


@pytest.mark.parametrize("known", [True, False])
def test_a_truncated_archive_is_refused(pages, tmp_path, known):
    archive = zipped({"a.txt": DATA})
    pages["/a"], pages["/b"] = Page(data=archive[:-30]), Page(data=archive)
    one = functools.partial(item, pages, data=archive, unzip="out", known=known)
    get(tmp_path, one("/a", "/b"))
    assert (tmp_path / "out/a.txt").read_bytes() == DATA
    with pytest.raises(ValueError, match=r"is no whole zip archive|bytes instead of"):
        get(tmp_path / "x", one("/a"))


def test_damaged_archives_leave_nothing_or_everything(pages, tmp_path):
    """Any byte changed: an error that says what to do, or the right files."""
    members = {f"{i}.txt": random.Random(i).randbytes(200) for i in range(3)}
    archive, rng, refused = zipped(members), random.Random(0), 0
    for trial in range(400):
        broken = bytearray(archive)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        folder = tmp_path / str(trial)
        try:
            found = unpack(pages, folder, bytes(broken), known=False)
        except ValueError as error:
            refused += 1
            assert re.search(r"http://127\S*/a", str(error)), error
            assert re.search("again|do not use|by hand", str(error)), error
            assert not (folder / "out").exists() or not list((folder / "out").iterdir()), error
        else:
            assert set(found.values()) == set(members.values())
    assert refused > 200


def test_members_lost_from_the_table_are_noticed(pages, tmp_path):
    archive = bytearray(zipped({"a.txt": b"one", "b.txt": b"two"}))
    first = archive.index(b"PK\1\2")
    second = archive.index(b"PK\1\2", first + 1)
    struct.pack_into("<H", archive, first + 32, second - first)  # a comment that hides the second
    with pytest.raises(ValueError, match=r"1 of 2 members are listed.*download it again"):
        unpack(pages, tmp_path, bytes(archive))
    comment = zipped({"a.txt": b"one"})[:-2] + b"\3\0abc"
    assert unpack(pages, tmp_path, comment) == {"a.txt": b"one"}


def test_an_encrypted_archive_is_refused(pages, tmp_path):
    archive = bytearray(zipped({"a.txt": b"secret"}))
    central = archive.index(b"PK\1\2")
    struct.pack_into("<H", archive, 6, 1)
    struct.pack_into("<H", archive, central + 8, 1)
    with pytest.raises(ValueError, match=r"encrypted.*nothing was unpacked"):
        unpack(pages, tmp_path, bytes(archive))


# The list of files.


def entry(**changes):
    facts = {"file": "a/b.zip", "urls": ["https://x.org/b"], "bytes": None, "sha256": None}
    return facts | {"licence": "CC0", "unzip": "a"} | changes


def load(folder, files):
    path = pathlib.Path(folder) / "list.json"
    path.write_text(json.dumps({"files": files}))
    return load_locations(path)


def test_the_list_of_the_package_is_well_formed():
    locations = load_locations()
    groups = {name.partition("/")[0] for name in locations}
    assert groups >= {"visual_genome", "vg150", "vrd", "psg", "coco", "glove"}
    text = describe(locations)
    for one in locations.values():
        assert one.name in text and one.licence in text and all(url in text for url in one.urls)
        assert one.file.startswith(one.name.partition("/")[0] + "/")
        assert one.urls or one.note
    assert "9.73 GB" in text
    assert "visualgenome.org" not in text  # given up by its owners


def test_names_and_groups_are_found():
    locations = load_locations()
    assert [x.name for x in choose(["vrd", "vrd/images"], locations)] == list(
        name for name in locations if name.startswith("vrd/")
    )
    assert not any(
        x.name.startswith("visual_genome_") for x in choose(["visual_genome"], locations)
    )
    with pytest.raises(ValueError, match=r"'visual_genom'; nearest: visual_genome,"):
        choose(["visual_genom"], locations)
    with pytest.raises(ValueError, match=r"nearest: .*glove"):
        choose(["qqqqqqqq"], locations)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("file", x) for x in (None, 3, "", "/a", "../a", "a/../b", "a\\b", "C:a", "a/", ".")),
        *(("urls", x) for x in (None, "https://x.org", [3], ["ftp://x.org/a"], ["https:///a"])),
        *(("urls", x) for x in (["file:a"], ["https://x.org/a b"])),
        *(("bytes", x) for x in (0, -1, 1.5, True, "12")),
        *(("sha256", x) for x in ("", "abc", 3, "g" * 64)),
        *(("licence", x) for x in (None, "", 3)),
        *(("unzip", x) for x in (3, "", "/a", "..")),
        ("flatten", None),
        ("note", 3),
        ("sha1", "x"),
    ],
)
def test_a_malformed_field_is_named(tmp_path, field, value):
    with pytest.raises(ValueError, match=rf"list\.json: files\.a/b\.{field} is .* must be .*mend"):
        load(tmp_path, {"a/b": entry(**{field: value})})


def test_malformed_lists_are_refused(tmp_path):
    assert load(tmp_path, {"a/b": entry(sha256="A" * 64)})["a/b"].sha256 == "a" * 64
    for missing in ("file", "urls", "bytes", "sha256", "licence", "unzip"):
        whole = entry()
        del whole[missing]
        with pytest.raises(ValueError, match=rf"files\.a/b\.{missing} is None, must be given"):
            load(tmp_path, {"a/b": whole})
    with pytest.raises(ValueError, match=r"files\.c\.file is 'a/b\.zip', must be another"):
        load(tmp_path, {"a/b": entry(), "c": entry()})
    for files in ({}, [], None, 3):
        with pytest.raises(ValueError, match="needs the form"):
            load(tmp_path, files)
    with pytest.raises(ValueError, match=r"files\.a is 3, must be an object"):
        load(tmp_path, {"a": 3})
    (tmp_path / "list.json").write_bytes(b"\xff{")
    for name in ("list.json", "none.json"):
        with pytest.raises(ValueError, match=f"{name}: no readable JSON"):
            load_locations(tmp_path / name)


def test_sizes_are_readable():
    sizes = [None, 999, 1500, 2_500_000, 9731705982]
    said = ["size not known", "999 bytes", "1.50 kB", "2.50 MB", "9.73 GB"]
    assert [readable(size) for size in sizes] == said
