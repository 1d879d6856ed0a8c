"""A pipeline's Python file or package: imported, and asked for `build` or for hayhooks' `PipelineWrapper`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from haystack import component

from haystream_service.errors import PipelineFileError
from haystream_service.pipelines.files.hayhooks_wrapper import WRAPPER_CLASS, build_wrapper
from haystream_service.pipelines.files.manifest import manifest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from haystack.utils import Secret

    from haystream_service.pipelines.files.manifest import Manifest

PACKAGE = "haystream_pipelines"
MANIFEST = "HAYSTREAM"

_versions = count(1)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class PythonSource:
    """`build(api_key: Secret | None = None)`, plain or async. The docstring's first line describes the pipeline."""

    build_function: Callable[..., Any]
    manifest: Manifest
    module_name: str

    @property
    def takes_api_key(self) -> bool:
        """Whether `build` has an `api_key`."""
        return "api_key" in inspect.signature(self.build_function).parameters

    def build(self, api_key: Secret | None = None) -> Any:
        """Call `build`."""
        with _surviving_exits(), _naming_what_is_missing(self.module_name):
            built = self.build_function(api_key=api_key) if api_key is not None else self.build_function()
        return _awaited(built, self.module_name) if inspect.isawaitable(built) else built

    def forget(self) -> None:
        """Forget the file's modules, and Haystack's note of its components."""
        _forget(self.module_name)


async def _awaited(building: Awaitable[Any], module_name: str) -> Any:
    with _surviving_exits(), _naming_what_is_missing(module_name):
        return await building


def read_python(name: str, path: Path) -> PythonSource:
    """Import a file, or a folder with `__init__.py` or hayhooks' `pipeline_wrapper.py`. Raises what its code raises.

    Each version has modules of its own, since runs may still need those of the version before.
    """
    path = path.absolute()
    module_name = f"{PACKAGE}.{name}_{next(_versions)}"
    _forget_bytecode(path)
    sys.modules.setdefault(PACKAGE, _namespace(PACKAGE))
    try:
        with _surviving_exits(), _naming_what_is_missing(module_name), _naming_its_line(path):
            return _source(name, module_name, list(_imported(module_name, path)))
    except BaseException:  # a file's own code raises anything, and its modules are in nobody's hands yet
        _forget(module_name)
        raise


def _source(name: str, module_name: str, modules: list[ModuleType]) -> PythonSource:
    manifest = manifest_of(next((said for m in modules if (said := getattr(m, MANIFEST, None)) is not None), None))
    if manifest.api_key_components is not None:
        raise PipelineFileError(f"`{MANIFEST}` has `api_key_components`: in Python `build(api_key=None)` takes the key")
    documentation = next((text for module in modules if (text := inspect.getdoc(module))), "")
    described = manifest.model_copy(
        update={"description": manifest.description or documentation.partition("\n")[0].strip()}
    )
    for module in modules:
        if callable(build := getattr(module, "build", None)):
            _check_that_it_can_be_called(build)
            return PythonSource(build, described, module_name)
        if isinstance(wrapper := getattr(module, WRAPPER_CLASS, None), type):
            return PythonSource(lambda: build_wrapper(wrapper, name), described, module_name)
    raise PipelineFileError(
        f"it has no function `build`, nor hayhooks' class `{WRAPPER_CLASS}`: add `def build(api_key=None)`"
    )


def _check_that_it_can_be_called(build: Callable[..., Any]) -> None:
    for parameter in inspect.signature(build).parameters.values():
        is_given = parameter.default is not parameter.empty or parameter.kind in _VARIADIC
        if not is_given and parameter.name != "api_key":
            raise PipelineFileError(f"`build` wants {parameter.name!r}: it gets `api_key` alone; give it a default")


def _imported(module_name: str, path: Path) -> Generator[ModuleType]:
    """Import what a pipeline's path holds: a file is one module; a folder may have a wrapper beside its `__init__`."""
    if not path.is_dir():
        yield _module_at(module_name, path)
        return
    package = _module_at(module_name, path / "__init__.py", folder=path)
    yield package
    if not hasattr(package, "build") and (path / "pipeline_wrapper.py").is_file():
        yield importlib.import_module(f"{module_name}.pipeline_wrapper")


def _module_at(module_name: str, path: Path, folder: Path | None = None) -> ModuleType:
    places = [str(folder)] if folder is not None else None
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise PipelineFileError("this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses, pickles and relative imports look it up there
    if path.is_file():
        spec.loader.exec_module(module)
    return module


def _namespace(name: str) -> ModuleType:
    """Return the package that all pipelines' modules are in: Python looks for it when they import their own parts."""
    package = ModuleType(name)
    package.__path__ = []
    return package


def _forget_bytecode(path: Path) -> None:
    """Forget what Python keeps of sources: it tells what is old by size and whole seconds, and saves can be quicker."""
    for source in path.rglob("*.py") if path.is_dir() else (path,):
        with suppress(OSError):
            Path(importlib.util.cache_from_source(str(source))).unlink()
    importlib.invalidate_caches()


def _forget(module_name: str) -> None:
    for names in (sys.modules, component.registry):
        for name in list(names):
            if name == module_name or name.startswith(f"{module_name}."):
                del names[name]


@contextmanager
def _naming_its_line(path: Path) -> Generator[None]:
    """Say where a file is no Python."""
    try:
        yield
    except SyntaxError as error:
        file = Path(error.filename or path)
        if not file.is_relative_to(path):
            raise  # of what it imports, or of text that it evaluates
        what = "this" if file == path else str(file.relative_to(path))
        line = f" at line {error.lineno}" if error.lineno else ""
        raise PipelineFileError(f"{what} is not Python{line}: mend its syntax") from error


@contextmanager
def _naming_what_is_missing(module_name: str) -> Generator[None]:
    """Say which module is not there. Haystack's components raise an ImportError from the one that says so."""
    try:
        yield
    except ImportError as error:
        name = next((e.name for e in (error, error.__cause__) if isinstance(e, ModuleNotFoundError)), None)
        if name is None:
            raise
        part = name.removeprefix(f"{module_name}.").removeprefix(f"{PACKAGE}.")
        cure = "put it into the pipeline's folder" if part != name else "install it beside the service"
        raise PipelineFileError(f"it imports {part}, which is not there: {cure}") from error


@contextmanager
def _surviving_exits() -> Generator[None]:
    """Keep a file that calls `sys.exit` from ending the service."""
    try:
        yield
    except SystemExit:
        raise PipelineFileError("the file calls `sys.exit`: raise an exception instead") from None
