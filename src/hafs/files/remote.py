"""Folders behind an address that fsspec opens: an object store, a server, a disk that is named as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files.fetch import locked, new_folder
from hafs.types import content_id


def fetch_folder(url: str, into: Path) -> Path:
    """A copy of the folder at `url` inside `into`, made when there is none of what lies there now.

    Raises UsageError when nothing lies there, MissingTool when fsspec needs a package for such addresses, HafsError
    when it cannot be read.
    """
    import fsspec

    try:
        disk, path = fsspec.core.url_to_fs(url)
        files: dict[str, Any] = disk.find(path, detail=True)
    except ImportError as e:
        raise MissingTool(f"{url} cannot be opened: {e}", "install the package that it names") from e
    except ValueError as e:
        raise UsageError(
            f"{url} cannot be opened: {e}", "an address that fsspec knows, such as s3://BUCKET/MODEL"
        ) from e
    except Exception as e:  # each kind of store has errors of its own
        raise HafsError(
            f"{url} cannot be read: {type(e).__name__}: {e}", "check the address and the right to read it"
        ) from e
    if not files:
        raise UsageError(f"nothing lies at {url}", "check the address")
    content = [[name.removeprefix(path), disk.ukey(name)] for name in sorted(files)]
    target = into / content_id("fetched", url, content)
    with locked(target.parent):
        if not target.is_dir():
            with new_folder(target) as folder:
                _copy(disk, path, sorted(files), folder, url)
    return target


def _copy(disk: Any, path: str, files: list[str], folder: Path, url: str) -> None:
    for name in files:
        inside = folder / name.removeprefix(path).lstrip("/")
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{url} holds a file that would lie outside of its folder: {name}", "use another copy")
        inside.parent.mkdir(parents=True, exist_ok=True)
        try:
            disk.get_file(name, str(inside))
        except Exception as e:  # see above
            raise HafsError(f"{name} at {url} cannot be read: {type(e).__name__}: {e}", "try again") from e
