"""The data: what is loaded, from where, and what happens when a file or the network is bad.

No test needs a network or touches the user's cache: a server on this machine stands in for
MNIST's mirrors, and gives out the embedded digits as if they were the full data.
"""

import contextlib
import gzip
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from make_embedded_digits import compress, idx, split
from peers import import_torchvision

from bnlib import mnist

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "bnlib" / "data"
NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
FILES = {f"{name}.gz": (EMBEDDED / f"{name}.gz").read_bytes() for name in NAMES}
IMAGES = "train-images-idx3-ubyte.gz"
FULL_DATA = os.environ.get("BNLIB_DATA", "")
CHECKSUMS = mnist._FULL  # which the tests replace


def load():
    """load() as in a new process, and the warnings it gives."""
    mnist._find.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # sockets of an earlier test
        data = mnist.load()
    for warning in caught:
        assert warning.category is UserWarning
        assert warning.filename == __file__  # the line that called load
        assert "\n" not in str(warning.message)
    return data, [str(warning.message) for warning in caught]


def fill(folder, files=FILES, plain=False):
    """Write files in torchvision's layout below `folder`."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, stored in files.items():
        if plain:
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress(stored))
        else:
            (raw / name).write_bytes(stored)
    return raw


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def is_kept(cache):
    """Whether the cache holds the four files and nothing else."""
    return content(cache) == {
        cache / "MNIST" / "raw" / name: stored for name, stored in sorted(FILES.items())
    } and [path.name for path in cache.iterdir()] == ["MNIST"]


def is_empty(cache):
    return not cache.exists() or not content(cache) and not list(cache.glob("download-*"))


def fell_back(data, notices, reason):
    """The embedded digits came, and the last warning says why."""
    return (
        not data.full
        and len(data.train_images) == 4000
        and "embedded digits, not the full MNIST" in notices[-1]
        and reason in notices[-1]
    )


def point_to(*urls, setattr=setattr):
    """Let bnlib fetch the embedded digits from these mirrors, and take them for MNIST."""
    setattr(mnist, "_MIRRORS", urls)
    setattr(mnist, "_FULL", mnist._EMBEDDED)


class Mirror(http.server.ThreadingHTTPServer):
    """A server of the files; `fault` says what it does wrong with the file `faulty`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.fault, self.faulty = "", IMAGES
        self.requests = 0
        self.hangs, self.over = threading.Event(), threading.Event()

    def handle_error(self, request, client_address):
        """A client that gave up is what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        name = self.path.strip("/")
        body = FILES[name]
        fault = self.server.fault if name == self.server.faulty else ""
        if fault == "silent":
            self.hang()
            return
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if fault == "404":
            self.send_error(404)
            return
        if fault == "no HTTP":
            self.wfile.write(b"who are you?\r\n")
            return
        if fault == "wrong":
            body = FILES["t10k-images-idx3-ubyte.gz"]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if fault != "endless" else 10**12))
        self.end_headers()
        if fault == "truncated":
            body = body[: len(body) // 2]
        if fault == "stalled":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.hang()
            return
        if fault == "drip":
            while not self.server.over.wait(0.02):
                self.wfile.write(body[:1])
                body = body[1:]
        self.wfile.write(body)
        while fault == "endless":  # until the client hangs up
            self.wfile.write(body)

    def hang(self):
        self.server.hangs.set()
        self.server.over.wait(15)  # seconds: to the end of the test, which fails if that is later

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no BNLIB_DATA, and mirrors that refuse every connection."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("BNLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BNLIB_DATA", raising=False)
    point_to(f"http://127.0.0.1:{port}/", setattr=monkeypatch.setattr)
    yield tmp_path / "cache"
    mnist._find.cache_clear()


@contextlib.contextmanager
def served():
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(cache, monkeypatch):
    with served() as server:
        point_to(server.url, setattr=monkeypatch.setattr)
        yield server


@pytest.fixture
def second(mirror, monkeypatch):
    """A mirror that is asked after the first."""
    with served() as server:
        point_to(mirror.url, server.url, setattr=monkeypatch.setattr)
        yield server


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder that BNLIB_DATA names."""
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "user"))
    return tmp_path / "user"


# What is in the arrays


def test_embedded_digits_on_purpose(monkeypatch):
    monkeypatch.setenv("BNLIB_DATA", "embedded")
    data, notices = load()
    assert notices == []
    assert data.source == "embedded digits, 4,000 + 1,000 images"
    assert data.checksum == "c4b32ec28b8c916c"
    assert data.full is False
    assert data.train_images.shape == (4000, 28, 28)
    assert data.test_images.shape == (1000, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert np.bincount(data.train_labels).tolist() == [400] * 10
    assert np.bincount(data.test_labels).tolist() == [100] * 10
    every = [image.tobytes() for image in (*data.train_images, *data.test_images)]
    assert len(set(every)) == 5000  # so training and test set share no image
    assert len(set(data.train_labels[:100])) == 10  # shuffled
    for array in data[:4]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert mnist.load() is data


def test_embedded_digits_that_are_damaged_are_an_error(tmp_path, monkeypatch):
    shutil.copytree(EMBEDDED, tmp_path / "data")
    (tmp_path / "data" / IMAGES).write_bytes(FILES[IMAGES][:-1])
    monkeypatch.setattr(mnist, "__file__", str(tmp_path / "mnist.py"))
    monkeypatch.setenv("BNLIB_DATA", "embedded")
    with pytest.raises(RuntimeError, match=f"{IMAGES} is damaged.*install the package again"):
        load()


def test_readme_has_the_checksums():
    readme = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert all(line in readme for line in mnist._EMBEDDED.strip().splitlines())


needs_full_data = pytest.mark.skipif(
    FULL_DATA in ("", "embedded"),
    reason="BNLIB_DATA names no folder with the full MNIST; the embedded digits are tested",
)


@pytest.fixture
def full_data(monkeypatch):
    """The environment's own BNLIB_DATA, with the checksums of the real MNIST."""
    monkeypatch.setattr(mnist, "_FULL", CHECKSUMS)
    monkeypatch.setenv("BNLIB_DATA", FULL_DATA)
    data, notices = load()
    assert notices == []
    return data


@needs_full_data
def test_full_data(full_data):
    assert full_data.source == "full MNIST, 60,000 + 10,000 images"
    assert full_data.checksum == "b2d8f5bf39174ee5"
    assert full_data.full is True
    assert full_data.train_images.shape == (60000, 28, 28)
    assert full_data.test_images.shape == (10000, 28, 28)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(full_data.train_labels).tolist() == train
    assert np.bincount(full_data.test_labels).tolist() == test


@needs_full_data
def test_full_data_plain_and_as_torchvision_reads_it(full_data, tmp_path, monkeypatch):
    raw = Path(FULL_DATA, "MNIST", "raw")
    packed = {
        f"{name}.gz": (raw / f"{name}.gz").read_bytes()
        if (raw / f"{name}.gz").exists()
        else gzip.compress((raw / name).read_bytes(), 1)
        for name in NAMES
    }
    fill(tmp_path / "plain", packed, plain=True)
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "plain"))
    data, notices = load()
    assert notices == []
    assert data.checksum == full_data.checksum
    for train, images, labels in ((True, *data[:2]), (False, *data[2:4])):
        theirs = import_torchvision("datasets").MNIST(tmp_path / "plain", train=train)
        assert np.array_equal(theirs.data, images)
        assert np.array_equal(theirs.targets, labels)


@needs_full_data
def test_embedded_digits_are_the_first_500_a_class_of_mnists_training_set(full_data):
    labels = full_data.train_labels.astype(np.uint8)
    first = np.concatenate([np.flatnonzero(labels == digit)[:500] for digit in range(10)])
    made = split(full_data.train_images[first], labels[first])
    assert made == {name: gzip.decompress(FILES[f"{name}.gz"]) for name in NAMES}


def test_tool_compresses_without_time_or_name():
    packed = compress(b"digits")
    assert gzip.decompress(packed) == b"digits"
    assert packed[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    assert all(stored.startswith(packed[:10]) for stored in FILES.values())


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=4)), st.data())
def test_idx_is_read_whole_or_not_at_all(array, data):
    stored = idx(array)
    assert np.array_equal(mnist._parse_idx(stored), array)
    with pytest.raises(ValueError, match="IDX"):
        mnist._parse_idx(stored[: data.draw(st.integers(0, len(stored) - 1))])
    with pytest.raises(ValueError, match="IDX"):
        mnist._parse_idx(stored + b"\0")
    with pytest.raises(ValueError, match="IDX"):
        mnist._parse_idx(b"\0\0\x0d" + stored[3:])  # 0x0d: float32


def test_binarize_and_scale():
    images = np.zeros((2, 28, 28), np.uint8)
    images[1, 0, :4] = [0, 127, 128, 255]
    black, gray = mnist.binarize(images), mnist.scale(images)
    assert black.shape == gray.shape == (2, 784)
    assert black.dtype == gray.dtype == np.float32
    assert black[1, :4].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(gray[1, :4], [0, 127 / 255, 128 / 255, 1], rtol=1e-6)
    assert not black[0].any()
    assert not gray[0].any()


@pytest.mark.parametrize("function", [mnist.binarize, mnist.scale])
def test_scaled_images_are_refused(function):
    with pytest.raises(TypeError, match="images: dtype is float32, expected uint8"):
        function(np.zeros((1, 784), np.float32))


# BNLIB_DATA


@pytest.mark.parametrize("plain", [False, True])
def test_users_folder(user, cache, mirror, plain):
    fill(user, plain=plain)
    data, notices = load()
    assert notices == []
    assert data.full
    assert data.checksum == "c4b32ec28b8c916c"
    assert mirror.requests == 0
    assert not cache.exists()


def test_users_folder_comes_before_the_cache(user, cache):
    fill(user)
    raw = fill(cache)
    (raw / IMAGES).write_bytes(b"never looked at")
    assert load()[1] == []


def test_users_folder_with_a_tilde(user, monkeypatch):
    fill(user)
    monkeypatch.setenv("HOME", str(user.parent))
    monkeypatch.setenv("USERPROFILE", str(user.parent))
    monkeypatch.setenv("BNLIB_DATA", "~/user")
    assert load()[0].full


def flip(stored):
    """One bit of the content is another: a gzip file that unpacks, a plain one of equal size."""
    changed = bytearray(gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored)
    changed[-1] ^= 1
    return gzip.compress(changed) if stored[:2] == b"\x1f\x8b" else bytes(changed)


DAMAGES = {
    "truncated": lambda stored: stored[: len(stored) // 2],
    "one bit": flip,
    "another file": lambda stored: FILES["t10k-images-idx3-ubyte.gz"],
    "garbage": lambda stored: b"<html>Please log in to this network</html>",
    "empty": lambda stored: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("plain", [False, True])
def test_damaged_file_of_the_user(user, mirror, plain, damage):
    raw = fill(user, plain=plain)
    bad = raw / (IMAGES.removesuffix(".gz") if plain else IMAGES)
    bad.write_bytes(DAMAGES[damage](bad.read_bytes()))
    before = content(user)
    data, notices = load()
    assert data.full  # downloaded
    assert mirror.requests > 0
    assert len(notices) == 1
    assert f"BNLIB_DATA={user}: {bad.name} is damaged or another file" in notices[0]
    assert str(raw) in notices[0]
    assert content(user) == before


def test_damaged_file_of_the_user_without_a_network(user, cache):
    raw = fill(user)
    (raw / IMAGES).write_bytes(b"")
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert len(notices) == 2
    assert IMAGES in notices[0]
    assert is_empty(cache)


def test_plain_file_beside_a_damaged_one(user, mirror):
    raw = fill(user)
    (raw / IMAGES.removesuffix(".gz")).write_bytes(gzip.decompress(FILES[IMAGES]))
    (raw / IMAGES).write_bytes(FILES[IMAGES][:1000])
    data, notices = load()
    assert data.checksum == "c4b32ec28b8c916c"
    assert mirror.requests == 0
    assert len(notices) == 1
    assert f"{IMAGES} is damaged" in notices[0]


def test_folder_of_the_user_that_does_not_exist(user):
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert f"BNLIB_DATA={user}: there is no such folder" in notices[0]
    assert str(Path("MNIST", "raw")) in notices[0]


def test_folder_of_the_user_is_a_file(user):
    user.write_text("a file")
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert f"BNLIB_DATA={user}: there is no such folder" in notices[0]


def test_folder_of_the_user_without_mnist(user):
    user.mkdir()
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert all(f"{name}.gz is missing" in notices[0] for name in NAMES)


def test_folder_of_the_user_without_one_file(user):
    raw = fill(user)
    (raw / IMAGES).unlink()
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert notices[0].count("is missing") == 1
    assert f"{IMAGES} is missing" in notices[0]


def test_file_of_the_user_that_cannot_be_read(user):
    raw = fill(user)
    (raw / IMAGES).unlink()
    (raw / IMAGES).mkdir()
    data, notices = load()
    assert fell_back(data, notices, "refused")
    assert f"{IMAGES} cannot be read (" in notices[0]


FORMS = {  # of a file with the right content
    "recompressed": lambda stored: gzip.compress(gzip.decompress(stored), 1),
    "in two members": lambda stored: b"".join(
        gzip.compress(part) for part in (gzip.decompress(stored)[:99], gzip.decompress(stored)[99:])
    ),
    "plain under the name of a gzip file": gzip.decompress,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_content_counts_and_not_how_it_is_packed(user, mirror, form):
    fill(user, {name: FORMS[form](stored) for name, stored in FILES.items()})
    data, notices = load()
    assert data.full and notices == []
    assert mirror.requests == 0


def test_gzip_under_the_name_of_a_plain_file(user, mirror):
    fill(user, {name.removesuffix(".gz"): stored for name, stored in FILES.items()})
    assert load()[1] == []
    assert mirror.requests == 0


# The cache


@pytest.mark.parametrize("plain", [False, True])
def test_cache(cache, mirror, plain):
    fill(cache, plain=plain)
    data, notices = load()
    assert data.full
    assert notices == []
    assert mirror.requests == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("plain", [False, True])
def test_damaged_file_in_the_cache(cache, mirror, plain, damage):
    raw = fill(cache, plain=plain)
    bad = raw / (IMAGES.removesuffix(".gz") if plain else IMAGES)
    bad.write_bytes(DAMAGES[damage](bad.read_bytes()))
    wrong = bad.read_bytes()
    data, notices = load()
    assert data.checksum == "c4b32ec28b8c916c"
    assert data.full
    assert len(notices) == 1
    assert f"{bad} is damaged or another file" in notices[0]
    assert f"set aside as {bad.name}.damaged" in notices[0]
    assert (raw / f"{bad.name}.damaged").read_bytes() == wrong
    assert (raw / IMAGES).read_bytes() == FILES[IMAGES]
    requests = mirror.requests
    data, notices = load()
    assert data.full
    assert notices == []
    assert mirror.requests == requests


def test_incomplete_cache_is_completed(cache, mirror):
    (fill(cache) / IMAGES).unlink()
    data, notices = load()
    assert data.full
    assert notices == []
    assert is_kept(cache)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "HOME/.cache/batchnorm-book"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/batchnorm-book"),
        ("darwin", {}, "HOME/Library/Caches/batchnorm-book"),
        ("win32", {}, "HOME/AppData/Local/batchnorm-book"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/batchnorm-book"),
        ("linux", {"BNLIB_CACHE": "/mine"}, "/mine"),
        ("win32", {"BNLIB_CACHE": "~/mine"}, "HOME/mine"),
    ],
)
def test_where_the_cache_is(platform, variables, folder, tmp_path, monkeypatch):
    for name in ("BNLIB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert mnist._cache_folder() == Path(os.path.abspath(folder.replace("HOME", str(tmp_path))))


@pytest.mark.skipif(sys.platform == "win32", reason="there, a home is found without HOME")
@pytest.mark.parametrize("chosen", [{}, {"BNLIB_CACHE": "~/mine"}, {"BNLIB_CACHE": "~nobody-x/y"}])
def test_without_a_home_the_cache_is_in_the_systems_temporary_folder(
    chosen, cache, mirror, tmp_path, monkeypatch
):
    def no_entry(uid):
        raise KeyError(uid)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in "HOME", "XDG_CACHE_HOME", "BNLIB_CACHE":
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    data, notices = load()
    assert data.full and notices == []
    assert list((tmp_path / "temporary").rglob(IMAGES))
    assert not list((tmp_path / "here").iterdir())


# The download


def test_download_is_kept(cache, mirror, capfd):
    data, notices = load()
    assert notices == []
    assert data.full
    assert data.checksum == "c4b32ec28b8c916c"
    assert is_kept(cache)
    assert capfd.readouterr() == ("", "")
    mirror.shutdown()
    requests = mirror.requests
    data, notices = load()
    assert data.full
    assert notices == []
    assert mirror.requests == requests


FAULTS = {
    "truncated": f"{IMAGES} is damaged or another file",
    "wrong": f"{IMAGES} is damaged or another file",
    "404": "HTTP Error 404",
    "reset": "ConnectionResetError",
    "no HTTP": "BadStatusLine",
    "silent": "timed out",
    "stalled": "timed out",
    "drip": "and no end; given up",
}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(mnist, "_TIMEOUT", 0.3)
    monkeypatch.setattr(mnist, "_LIMIT", 0.3)


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
@pytest.mark.usefixtures("impatient")
def test_download_with_a_fault(cache, mirror, monkeypatch, fault, reason):
    mirror.fault = fault
    data, notices = load()
    assert len(notices) == 1
    assert fell_back(data, notices, reason)
    assert is_empty(cache)
    mirror.fault = ""
    monkeypatch.setattr(mnist, "_LIMIT", 300)
    data, notices = load()  # the network is fine again, and nothing is left over
    assert data.full
    assert notices == []
    assert is_kept(cache)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("impatient")
def test_the_second_mirror_is_asked_when_the_first_has_a_fault(cache, mirror, second, fault):
    mirror.fault = fault
    data, notices = load()
    assert data.full
    assert notices == []
    assert mirror.requests == 1
    assert second.requests == 4
    assert is_kept(cache)


def test_what_one_mirror_gave_need_not_come_from_the_next(cache, mirror, second):
    mirror.fault, mirror.faulty = "404", "t10k-labels-idx1-ubyte.gz"
    assert load()[0].full
    assert (mirror.requests, second.requests) == (4, 1)
    assert is_kept(cache)


def test_both_mirrors_are_named_when_neither_gives_the_files(mirror, second):
    mirror.fault, second.fault = "404", "wrong"
    data, notices = load()
    assert fell_back(data, notices, f"{mirror.url}: HTTPError: HTTP Error 404")
    assert f"{second.url}: ValueError: {IMAGES} is damaged or another file" in notices[0]


def test_more_bytes_than_any_file_has(mirror, monkeypatch):
    monkeypatch.setattr(mnist, "_LARGEST", 4_000_000)  # the embedded images take 3,136,016
    mirror.fault = "endless"
    assert fell_back(*load(), "and no end; given up")


def test_server_that_refuses(cache):
    data, notices = load()
    assert len(notices) == 1
    assert fell_back(data, notices, "refused")
    assert "BNLIB_DATA=embedded" in notices[0]
    assert is_empty(cache)


def start(script, *folders):
    """Python in another process that can import from `folders`, bnlib and this file."""
    path = os.pathsep.join(map(str, [*folders, ROOT, ROOT / "tests", ROOT / "tools"]))
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script, *folders):
    """What the script printed as JSON."""
    process = start(script, *folders)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(printed)


def test_import_needs_numpy_only():
    script = "import bnlib.mnist, json, sys; print(json.dumps(list(sys.modules)))"
    assert not {"torch", "torchvision", "matplotlib"} & set(run(script))


def test_torchvision_built_for_another_torch(tmp_path):
    # Imports as torchvision does beside a torch that it was not built for.
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda *args: None)\n"
    )
    (tmp_path / "torchvision" / "datasets.py").write_text("MNIST = 'the class'\n")
    script = "import json, peers; print(json.dumps(peers.import_torchvision('datasets').MNIST))"
    assert run(script, tmp_path) == "the class"


def test_process_that_is_killed_while_it_downloads(cache, mirror):
    mirror.fault = "stalled"
    with start(f"import test_mnist as t; t.point_to({mirror.url!r}); t.load()") as process:
        assert mirror.hangs.wait(60)
        process.kill()
    mirror.fault = ""
    data, notices = load()
    assert data.full
    assert notices == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_full_disk(cache, mirror):
    # No file can grow beyond 100 kB, as on a disk that is full: the training images cannot be kept.
    script = (
        "import json, resource, test_mnist as t\n"
        f"t.point_to({mirror.url!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "data, notices = t.load()\n"
        "print(json.dumps([data.full, len(data.train_images), notices]))"
    )
    full, images, notices = run(script)
    assert full
    assert images == 4000
    assert len(notices) == 1
    assert "could not be kept in the cache" in notices[0] and "File too large" in notices[0]
    assert mirror.requests > 0
    assert is_empty(cache)


@contextlib.contextmanager
def read_only(folder):
    """Nothing in `folder` can be written, not even by root, who becomes another user meanwhile."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for each in folders:
            each.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
@pytest.mark.parametrize("damaged", [False, True])
def test_read_only_cache(mirror, monkeypatch, damaged):
    assert load()[0].full  # imports what a download needs while every folder can be read
    with tempfile.TemporaryDirectory() as reachable:  # tmp_path is closed to other users
        os.chmod(reachable, 0o755)
        cache, temporary = Path(reachable, "cache"), Path(reachable, "temporary")
        temporary.mkdir()
        temporary.chmod(0o777)
        cache.mkdir()
        if damaged:
            fill(cache, {IMAGES: b"damaged"})
        before = content(cache)
        monkeypatch.setenv("BNLIB_CACHE", str(cache))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with read_only(cache):
            data, notices = load()
        assert content(cache) == before
        assert not list(temporary.iterdir())
    assert data.full
    assert data.checksum == "c4b32ec28b8c916c"
    assert len(notices) == 1 + damaged
    assert "could not be kept in the cache" in notices[-1]
    assert "BNLIB_CACHE" in notices[-1]
