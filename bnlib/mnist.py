"""The MNIST digits: found or fetched, verified, and never half-read.

`load` takes the first of these places that holds four files with the right checksums:

1. the folder that the environment variable ``BNLIB_DATA`` names, laid out as torchvision does it
   (``MNIST/raw/train-images-idx3-ubyte.gz`` and so on, gzipped or plain); it is never modified;
2. the cache: the folder ``BNLIB_CACHE``, or ``batchnorm-book`` in the user's cache folder;
3. a download by torchvision, which is then kept in the cache;
4. 5,000 real MNIST digits that come with this package, with a warning that says so.

``BNLIB_DATA=embedded`` takes the embedded digits on purpose, without the warning.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import os
import socket
import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Gzipped: as TensorFlow Datasets publishes them. Plain: of what those unpack to.
_FULL = """
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
"""
# As tools/make_embedded_digits.py prints them.
_EMBEDDED = """
de4275b6f6c84a82cbbf8434e8e4a9d109fae6de77ce26cdc287d49d01d40f69  train-images-idx3-ubyte.gz
4fba5cedc4bf60f1e40dfb11bcce0dde6635af5b1728d8ce52d8425f05442909  train-images-idx3-ubyte
73ae7936eed83668b8892869789bc7e646b91fca29ffd7e9f960bfd78428d48f  train-labels-idx1-ubyte.gz
461fcfc2bd010db3d8756f990f15555bbe0b032804d6bba4c57f96d7fdca329a  train-labels-idx1-ubyte
ffd10d446fbe6bd33f442f055008445b317c7e689090f490d3b9adf29ba178f3  t10k-images-idx3-ubyte.gz
9193556b2cef8059103d4598695d4548b4342665a9690ffaa4f14b6782a8a5ae  t10k-images-idx3-ubyte
f339b246f65f418372b10d429c6f91a41a8f5143f79969be92df89331e63653f  t10k-labels-idx1-ubyte.gz
c0350f43ab1e57603746897c096982c222c8007d74e7d3eb3240667e6cc1ae9e  t10k-labels-idx1-ubyte
"""
_MISSING = "is missing"
_TIMEOUT = 10.0  # seconds without a byte before a download is given up


class MNIST(NamedTuple):
    """The digits and what they are. The arrays are read-only: every `load` hands out the same."""

    train_images: NDArray[np.uint8]  # (N, 28, 28), from 0, the paper, to 255, the ink
    train_labels: NDArray[np.int64]  # (N,), from 0 to 9
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    source: str  # one line to print beside a result
    full: bool  # False for the embedded digits
    checksum: str  # start of the sha256 over the content of the four files


def load() -> MNIST:
    """Return the full MNIST or, with a warning, the embedded digits.

    Returns:
        The digits. The first call reads or downloads them, later ones in the process reuse them.

    Raises:
        RuntimeError: The embedded digits are damaged; install the package again.
    """
    data, notices = _find(os.environ.get("BNLIB_DATA", ""), _cache_folder())
    for notice in notices:
        warnings.warn(notice, stacklevel=2)
    return data


def binarize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of zeros and ones: 1 where a pixel is above 127.

    The paper (section 4.1) says "binary image" and gives no threshold; 127 is our choice.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784), each 0 or 1.

    Raises:
        TypeError: The images are not uint8; scaled ones would all become 0.
    """
    return (_rows(images) > 127).astype(np.float32)


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of pixel / 255, from 0 to 1.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784).

    Raises:
        TypeError: The images are not uint8; they may be scaled already.
    """
    return _rows(images).astype(np.float32) / np.float32(255)


def standardize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of (pixel / 255 − 0.1307) / 0.3081.

    These are the mean and the standard deviation of all pixels of the full training set, so that
    its rows have mean 0 and standard deviation 1 over all pixels.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784).

    Raises:
        TypeError: The images are not uint8; they may be scaled already.
    """
    return (scale(images) - np.float32(0.1307)) / np.float32(0.3081)


def _rows(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise TypeError(f"images: dtype is {images.dtype}, expected uint8, pixels from 0 to 255")
    return images.reshape(-1, 28 * 28)


@functools.lru_cache(maxsize=1)
def _find(setting: str, cache: Path) -> tuple[MNIST, list[str]]:
    """The digits for a setting of BNLIB_DATA, and what the reader should know of the search."""
    notices: list[str] = []
    contents: list[bytes] = []
    if setting != "embedded":
        contents = (
            _from_user(setting, notices)
            or _from_cache(cache, notices)
            or _from_download(cache, notices)
        )
    full = bool(contents)
    if not full:
        contents, faults = _read(Path(__file__).with_name("data"), _EMBEDDED)
        if faults:
            raise RuntimeError(f"embedded digits: {_listed(faults)}; install the package again")
    train_images, train_bytes, test_images, test_bytes = map(_parse_idx, contents)
    train_labels, test_labels = train_bytes.astype(np.int64), test_bytes.astype(np.int64)
    train_labels.flags.writeable = test_labels.flags.writeable = False
    kind = "full MNIST" if full else "embedded digits"
    source = f"{kind}, {len(train_images):,} + {len(test_images):,} images"
    checksum = hashlib.sha256(b"".join(contents)).hexdigest()[:16]
    data = MNIST(train_images, train_labels, test_images, test_labels, source, full, checksum)
    return data, notices


def _cache_folder() -> Path:
    if chosen := os.environ.get("BNLIB_CACHE"):
        return _absolute(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _absolute(base) / "batchnorm-book"


def _absolute(folder: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(folder)))


def _from_user(setting: str, notices: list[str]) -> list[bytes]:
    if not setting:
        return []
    folder = _absolute(setting)
    contents, faults = _read(folder / "MNIST" / "raw", _FULL)
    if faults:
        what = _listed(faults) if os.path.isdir(folder) else "there is no such folder"
        notices.append(
            f"BNLIB_DATA={setting}: {what}. Expected: the four files of MNIST, gzipped or plain, "
            f"in {folder / 'MNIST' / 'raw'}."
        )
    return contents


def _from_cache(cache: Path, notices: list[str]) -> list[bytes]:
    contents, faults = _read(cache / "MNIST" / "raw", _FULL)
    for path, fault in faults.items():
        if fault != _MISSING:
            aside = path.with_name(f"{path.name}.damaged")
            notices.append(f"Cache: {path} {fault}; not used, and set aside as {aside.name}.")
            with contextlib.suppress(OSError):  # read-only: it stays there, and stays unused
                os.replace(path, aside)
    return contents


def _from_download(cache: Path, notices: list[str]) -> list[bytes]:
    try:
        with _temporary_folder(cache) as folder:
            _download(folder)
            raw = Path(folder, "MNIST", "raw")
            contents, faults = _read(raw, _FULL)
            if faults:
                raise ValueError(_listed(faults))
            _keep(raw, cache / "MNIST" / "raw", notices)
            return contents
    except Exception as error:  # whatever torchvision and the network raise, the reader goes on
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        notices.append(
            f"Using the 5,000 embedded digits, not the full MNIST: its download failed ({reason}). "
            "For the full data go online with torchvision installed, or set BNLIB_DATA to a folder "
            "with MNIST/raw/train-images-idx3-ubyte.gz and the three other files; "
            "BNLIB_DATA=embedded takes the embedded digits without this warning."
        )
        return []


def _temporary_folder(cache: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder in the cache, from where a file is moved in one step, or else the system's."""
    make = functools.partial(tempfile.TemporaryDirectory, ignore_cleanup_errors=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return make(prefix="download-", dir=cache)
    except OSError:
        return make(prefix="batchnorm-book-")


def _download(folder: str) -> None:
    """Let torchvision download MNIST into `folder`, without its progress bars."""
    dataset = _torchvision_mnist()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # torchvision sets none and would wait for ever
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            dataset(folder, download=True)
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_mnist() -> Any:
    try:
        from torchvision.datasets import MNIST as dataset
    except RuntimeError as error:
        # A torchvision built for another torch, such as one with CUDA, cannot load its operators,
        # and then misses two of them at import. Declaring them is enough to use its datasets.
        if "torchvision::" not in str(error):
            raise
        import torch

        _declarations.append(library := torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.datasets import MNIST as dataset
    return dataset


_declarations: list[Any] = []  # torch forgets a declaration when its Library is deleted


def _keep(downloaded: Path, kept: Path, notices: list[str]) -> None:
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for file in downloaded.glob("*.gz"):
            os.replace(file, kept / file.name)
    except OSError as error:
        notices.append(
            f"MNIST was downloaded but could not be kept in the cache ({error}), and the next run "
            "downloads it again; set BNLIB_CACHE to a folder that can be written."
        )


def _read(raw: Path, checksums: str) -> tuple[list[bytes], dict[Path, str]]:
    """The four verified contents (or an empty list), and what is wrong with which file."""
    words = checksums.split()
    expected = dict(zip(words[1::2], words[::2], strict=True))
    contents: list[bytes] = []
    faults: dict[Path, str] = {}
    for gzipped in words[1::4]:
        for name in (gzipped, gzipped.removesuffix(".gz")):
            path = raw / name
            try:
                contents.append(_verified(path, expected[name]))
                break
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                faults[path] = f"cannot be read ({error})"
            except ValueError as error:
                faults[path] = str(error)
        else:
            faults.setdefault(raw / gzipped, _MISSING)
    return contents if len(contents) == 4 else [], faults


def _listed(faults: dict[Path, str]) -> str:
    return "; ".join(f"{path.name} {fault}" for path, fault in faults.items())


def _verified(path: Path, sha256: str) -> bytes:
    """The unpacked content of a file, or a ValueError that completes the sentence "FILE ..."."""
    stored = path.read_bytes()
    found = hashlib.sha256(stored).hexdigest()
    if found != sha256:
        raise ValueError(
            f"is damaged or another file ({len(stored):,} bytes with sha256 {found[:8]}..., "
            f"expected {sha256[:8]}...)"
        )
    return gzip.decompress(stored) if path.suffix == ".gz" else stored


def _parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in an IDX file: 0, 0, 8 for uint8, dimensions, big-endian sizes, values."""
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"IDX: header is {content[:8]!r}, expected 0, 0, 8, dimensions, sizes")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise ValueError(f"IDX: {len(content) - start:,} values, expected those of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
