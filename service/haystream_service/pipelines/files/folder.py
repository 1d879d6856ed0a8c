"""The folder of pipelines: which files in it are pipelines, what each is called, and whether it has changed."""

from __future__ import annotations

import os.path
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

YAML_ENDINGS = (".yaml", ".yml")
READ_ENDINGS = (".py", ".yaml", ".yml", ".json", ".toml", ".txt", ".md", ".j2", ".jinja", ".jinja2", ".html")
PACKAGE_FILES = ("__init__.py", "pipeline_wrapper.py")  # the latter is what hayhooks calls it

# What tells one version of a file from the next: its name, time of change, size and place on the disk.
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """A pipeline's place in the folder. `problem` is why it cannot be one, in words for its owner; empty: it can."""

    name: str
    path: Path
    fingerprint: Fingerprint
    problem: str = ""

    @property
    def title(self) -> str:
        """What the file is called, ending included, as messages can carry it: Linux lets names be any bytes."""
        return "".join(letter if letter.isprintable() else "?" for letter in self.path.name)


def pipeline_files(folder: Path) -> dict[str, PipelineFile]:
    """Return the pipelines of a folder by name. Names with a leading underscore or dot are not pipelines."""
    found: dict[str, PipelineFile] = {}
    for path in sorted(path for path in folder.iterdir() if _is_pipeline(path)):
        file = _file_at(path, folder)
        twin = found.get(file.name)
        found[file.name] = file if twin is None else _twins(twin, file)
    return found


def _is_pipeline(path: Path) -> bool:
    if path.name.startswith(("_", ".")):
        return False
    if path.is_dir():
        with suppress(PermissionError):  # a file system's own, such as lost+found
            return any((path / name).is_file() for name in PACKAGE_FILES)
        return False
    return path.suffix in (".py", *YAML_ENDINGS) and (path.is_file() or path.is_symlink())


def _file_at(path: Path, folder: Path) -> PipelineFile:
    files = [path] if not path.is_dir() else sorted(_files_below(path))
    name = path.name if path.is_dir() else path.stem
    if not name.isprintable():
        name = "".join(letter if letter.isprintable() else "?" for letter in name)
        return PipelineFile(name, path, (), "its name has letters that cannot be shown: rename it")
    inside = os.path.realpath(folder)  # rather than `resolve`, which raises where links go in a circle
    if stray := next((file for file in files if not Path(os.path.realpath(file)).is_relative_to(inside)), None):
        where = stray.relative_to(folder)
        problem = f"{where} is a symbolic link that leaves the folder of pipelines: put the file itself there"
        return PipelineFile(name, path, (), problem)
    if not path.exists():
        return PipelineFile(name, path, (), "it is a symbolic link to nothing: put the file itself there")
    return PipelineFile(name, path, tuple(_version(file, folder) for file in files if file == path or _is_read(file)))


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if "__pycache__" not in path.parts and (path.is_file() or path.is_symlink()):
            yield path


def _is_read(file: Path) -> bool:
    """Whether a package may be read from a file, not written to: a cache or a log would have it loaded for ever."""
    return file.suffix in READ_ENDINGS and not file.name.startswith(".") and file.exists()


def _version(file: Path, folder: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return str(file.relative_to(folder)), status.st_mtime_ns, status.st_size, status.st_ino


def _twins(first: PipelineFile, second: PipelineFile) -> PipelineFile:
    problem = f"{first.path.name} and {second.path.name} have the same name: rename one of them"
    return PipelineFile(first.name, first.path, (*first.fingerprint, *second.fingerprint), problem)
