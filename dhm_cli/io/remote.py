"""Files elsewhere: in object stores, on web servers, in archives; reached by the URLs of fsspec, where it is installed.

No connection is opened but to what a URL of the user names.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from dhm_cli.errors import DhmError, InputError
from dhm_cli.runtime.atomic import written_atomically

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CHECK = "check the address, and that you may read it"


def is_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is an address such as s3://bucket/a.jpg or zip://a.jpg::photos.zip, no file of this machine."""
    return isinstance(name, str) and _URL.match(name) is not None


def read_url(url: str, most: int) -> bytes:
    """The whole content of a file elsewhere.

    Args:
        url: its address.
        most: bytes; a larger file is refused.

    Raises:
        InputError: it cannot be read, or is too large.
        DhmError: fsspec, or its part for such addresses, is not installed.
    """
    store, path = _store(url)
    try:
        data: bytes = store.cat_file(path, 0, most + 1)
    except Exception as error:  # each kind of store has errors of its own
        raise _unreadable(url, error) from error
    if len(data) > most:
        raise InputError(f"{url}: more than {most / 1e6:,.0f} MB", "save the photo smaller, or pass --max-pixels")
    return data


@contextmanager
def open_file(name: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file of this machine, or elsewhere, for reading.

    Raises:
        InputError: it cannot be opened.
        DhmError: fsspec, or its part for such addresses, is not installed.
    """
    with ExitStack() as stack:
        try:
            if is_url(name):
                store, path = _store(str(name))
                file = stack.enter_context(store.open(path, "rb"))
            else:
                file = stack.enter_context(Path(name).open("rb"))
        except DhmError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise _unreadable(os.fspath(name), error) from error
        yield file


def find_urls(url: str, endings: Sequence[str]) -> list[str]:
    """The files that an address stands for.

    Args:
        url: of a file, which is taken as it is; of a folder, which is searched like one of this machine; or a pattern.
            On web servers an address is always that of a file.
        endings: of the names of files in a folder, in lower case.

    Raises:
        InputError: nothing is there, or it cannot be reached.
        DhmError: fsspec, or its part for such addresses, is not installed.
    """
    if url.startswith(("http://", "https://")):
        _store(url)  # a package that is missing is told of at once
        return [url]
    found = list_urls(url, endings)
    if not found:
        raise InputError(f"{url}: no photos there", f"{_CHECK}; looked for {' '.join(endings)}")
    return found


def list_urls(url: str, endings: Sequence[str]) -> list[str]:
    """As `find_urls`, but nothing is found where nothing is, and web servers are not known."""
    store, path = _store(url)
    try:
        if glob.has_magic(path):
            found = [name for name in sorted(store.glob(path)) if store.isfile(name)]
        elif store.isfile(path):
            return [url]
        else:
            inside = {name: name[len(path) :].split("/") for name in sorted(store.find(path))}
            found = [
                name
                for name, parts in inside.items()
                if name.lower().endswith(tuple(endings)) and not any(part.startswith(".") for part in parts)
            ]
    except Exception as error:  # each kind of store has errors of its own
        raise _unreadable(url, error) from error
    rest = url.partition("::")[2]
    return [store.unstrip_protocol(name) + (f"::{rest}" if rest else "") for name in found]


def check_upload(url: str, force: bool) -> None:
    """Refuse an address that cannot be written to, or where something is, unless `force` is set.

    Raises:
        InputError: as said.
        DhmError: fsspec, or its part for such addresses, is not installed.
    """
    if url.startswith(("http://", "https://")) or "::" in url:
        raise InputError(f"{url}: cannot be written to", "write to a file, or to an object store such as s3://")
    store, path = _store(url)
    try:
        taken = not force and store.exists(path)
    except Exception as error:  # each kind of store has errors of its own
        raise _unreadable(url, error) from error
    if taken:
        raise InputError(f"{url}: exists", "choose another --out, or pass --force to replace it")


def upload(file: Path, url: str) -> None:
    """Copy a whole file to an address: it appears there at once, as far as the store can do that.

    Raises:
        InputError: it cannot be written there; the file stays.
    """
    store, path = _store(url)
    try:
        if getattr(store, "local_file", False):  # fsspec would write it elsewhere and move it from disk to disk
            with written_atomically(Path(path)) as partial:
                shutil.copyfile(file, partial)
            return
        with store.transaction, file.open("rb") as source, store.open(path, "wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    except Exception as error:  # each kind of store has errors of its own
        raise InputError(f"{url}: cannot be written: {_reason(error)}", "check the address and your rights") from error


def _store(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    outer, mark, rest = url.partition("::")
    try:
        import fsspec

        if not mark:
            found: tuple[Any, str] = fsspec.url_to_fs(url)
            return found
        protocol, path = outer.split("://", 1)
        return _archive(f"{protocol}://{mark}{rest}"), path
    except ImportError as error:
        if getattr(error, "name", "") == "fsspec":
            raise DhmError(f"{url}: fsspec is not installed", "pip install 'dhm-cli[remote]'") from error
        raise DhmError(f"{url}: {_reason(error)}", "install that package, then run again") from error
    except Exception as error:  # each kind of store has errors of its own
        raise _unreadable(url, error) from error


@lru_cache(maxsize=8)
def _archive(url: str) -> Any:
    """The file system in an archive; its list of files is read once, not once a photo."""
    import fsspec

    return fsspec.url_to_fs(url)[0]


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: cannot be read: {_reason(error)}", _CHECK)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
