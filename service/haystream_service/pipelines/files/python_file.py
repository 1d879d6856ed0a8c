"""A pipeline's Python file or package: imported, and asked for `build` or for hayhooks' `PipelineWrapper`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from haystream_service.errors import PipelineFileError
from haystream_service.pipelines.files.hayhooks_wrapper import WRAPPER_CLASS, build_wrapper
from haystream_service.pipelines.files.manifest import manifest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from haystack.utils import Secret

    from haystream_service.pipelines.files.manifest import Manifest

PACKAGE = "haystream_pipelines"
MANIFEST = "HAYSTREAM"


@dataclass(frozen=True, slots=True)
class PythonSource:
    """`build(api_key: Secret | None = None)`, plain or async. The docstring's first line describes the pipeline."""

    build_function: Callable[..., Any]
    manifest: Manifest

    @property
    def takes_api_key(self) -> bool:
        """Whether `build` has an `api_key`."""
        return "api_key" in inspect.signature(self.build_function).parameters

    def build(self, api_key: Secret | None = None) -> Any:
        """Call `build`."""
        with _surviving_exits():
            built = self.build_function(api_key=api_key) if api_key is not None else self.build_function()
        return _awaited(built) if inspect.isawaitable(built) else built


async def _awaited(building: Awaitable[Any]) -> Any:
    with _surviving_exits():
        return await building


def read_python(name: str, path: Path) -> PythonSource:
    """Import a file, or a folder with `__init__.py` or hayhooks' `pipeline_wrapper.py`. Raises what its code raises."""
    _forget(path)
    sys.modules.setdefault(PACKAGE, _namespace(PACKAGE))
    with _surviving_exits():
        modules = list(_imported(f"{PACKAGE}.{name}", path))
    manifest = manifest_of(next((said for m in modules if (said := getattr(m, MANIFEST, None)) is not None), None))
    documentation = next((text for module in modules if (text := inspect.getdoc(module))), "")
    described = manifest.model_copy(
        update={"description": manifest.description or documentation.partition("\n")[0].strip()}
    )
    for module in modules:
        if callable(build := getattr(module, "build", None)):
            return PythonSource(build, described)
        if isinstance(wrapper := getattr(module, WRAPPER_CLASS, None), type):
            return PythonSource(lambda: build_wrapper(wrapper, name), described)
    raise PipelineFileError("the file has no function `build`: add `def build(api_key=None)`")


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


def _forget(path: Path) -> None:
    """Forget the modules of an earlier version of the file, or else its package's parts would stay as they were.

    Their bytecode as well: Python tells that it is old by size and whole seconds, and saves can be quicker than that.
    """
    for source in path.rglob("*.py") if path.is_dir() else (path,):
        with suppress(OSError):
            Path(importlib.util.cache_from_source(str(source))).unlink()
    importlib.invalidate_caches()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(f"{PACKAGE}.") and file and (file == str(path) or file.startswith(f"{path}/")):
            del sys.modules[name]


@contextmanager
def _surviving_exits() -> Generator[None]:
    """Keep a file that calls `sys.exit` from ending the service."""
    try:
        yield
    except SystemExit:
        raise PipelineFileError("the file calls `sys.exit`: raise an exception instead") from None
