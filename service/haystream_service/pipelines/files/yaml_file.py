"""A pipeline's YAML file: Haystack's own serialisation, with what its owner says beside it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import yaml
from haystack.core.errors import DeserializationError, PipelineError
from haystack.core.serialization import DeserializationCallbacks

from haystream_service.errors import PipelineFileError
from haystream_service.pipelines.files.manifest import BLOCK, manifest_of
from haystream_service.pipelines.generation import pipeline_class

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from haystack.utils import Secret

    from haystream_service.pipelines.files.manifest import Manifest

API_KEY = "api_key"
ALLOWLIST = "HAYSTACK_DESERIALIZATION_ALLOWLIST"


@dataclass(frozen=True, slots=True)
class YamlSource:
    """What `Pipeline.dumps` has written. `api_key_components` are built with the caller's key where there is one."""

    serialized: Mapping[str, Any]
    manifest: Manifest
    api_key_components: tuple[str, ...]

    @property
    def takes_api_key(self) -> bool:
        """Whether some component takes a key."""
        return bool(self.api_key_components)

    def build(self, api_key: Secret | None = None) -> Any:
        """Build the pipeline. Raises PipelineFileError with the component or the connection that is wrong."""
        takers: set[str] = set()

        def give_key(name: str, kind: type, parameters: dict[str, Any]) -> None:
            if name in self.api_key_components and _takes_key(kind):
                takers.add(name)
                if api_key is not None:
                    parameters[API_KEY] = api_key

        callbacks = DeserializationCallbacks(component_pre_init=give_key)
        components = {
            name: _component(name, serialized, callbacks) for name, serialized in self.serialized["components"].items()
        }
        for name in self.manifest.api_key_components or ():
            if name not in takers:
                raise PipelineFileError(f"`{BLOCK}.api_key_components`: {name} takes no {API_KEY}; remove it")
        try:
            return pipeline_class().from_dict(dict(self.serialized), callbacks, components=components)
        except (PipelineError, ValueError) as error:  # Haystack's words here name components, sockets and types
            raise PipelineFileError(f"`connections`: {_first_line(error)}") from None

    def forget(self) -> None:
        """Do nothing: a YAML file leaves nothing behind."""


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file. Raises PipelineFileError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise PipelineFileError(f"this is not YAML{where}: mend its syntax") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PipelineFileError("this is not YAML in UTF-8") from None
    serialized = _checked(data)
    manifest = manifest_of(serialized.get(BLOCK), hayhooks=serialized)
    return YamlSource(serialized, manifest, _api_key_components(serialized["components"], manifest))


def _checked(data: object) -> dict[str, Any]:
    """Return a serialised pipeline that has its main parts. Raises PipelineFileError."""
    serialized: dict[str, Any] = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if not isinstance(serialized.get("components"), dict) or not serialized["components"]:
        raise PipelineFileError("`components` is missing: expected what Haystack's `Pipeline.dumps` writes")
    for name, component in serialized["components"].items():
        if not isinstance(name, str) or "." in name:
            raise PipelineFileError(f"`components.{name}`: expected a name in text, without dots")
        if not isinstance(component, dict) or not isinstance(cast("dict[str, Any]", component).get("type"), str):
            raise PipelineFileError(f"`components.{name}.type` is missing: expected the component's class")
    if not isinstance(serialized.get("max_runs_per_component", 1), int):
        raise PipelineFileError("`max_runs_per_component`: expected a whole number")
    connections: object = serialized.get("connections") or []
    if not isinstance(connections, list):
        raise PipelineFileError("`connections`: expected a list of senders and receivers")
    for index, connection in enumerate(cast("list[Any]", connections)):
        ends = cast("dict[str, Any]", connection) if isinstance(connection, dict) else {}
        if not all(isinstance(ends.get(end), str) for end in ("sender", "receiver")):
            raise PipelineFileError(f"`connections[{index}]`: expected a `sender` and a `receiver`")
    return {**serialized, "connections": connections}


def _component(name: str, serialized: dict[str, Any], callbacks: DeserializationCallbacks) -> Any:
    """Build one component, so that the one which is wrong can be named. Raises PipelineFileError."""
    alone: dict[str, Any] = {"components": {name: serialized}, "connections": []}
    path = serialized["type"]
    try:
        return pipeline_class().from_dict(alone, callbacks).remove_component(name)
    except PipelineError as error:
        cure = "check the name, and that its package is installed"
        raise PipelineFileError(f"`components.{name}.type`: there is no {path}; {cure}") from error
    except Exception as error:  # what a component's own code may raise
        why = f"`components.{name}`: {path.rpartition('.')[2]} cannot be made"
        first = _first_cause(error)
        if isinstance(first, DeserializationError) and ALLOWLIST in str(first):
            kind = f"`components.{name}.type`: Haystack does not trust {path}" if first is error else why
            cure = f"allow the packages of what is in it by {ALLOWLIST}, in the environment"
            raise PipelineFileError(f"{kind}; {cure}") from error
        if isinstance(first, ModuleNotFoundError):
            raise PipelineFileError(f"{why}: it needs {first.name}, which is not installed; install it") from error
        cure = "check its `init_parameters`; the service's log has the details"
        raise PipelineFileError(f"{why}; {cure}") from error


def _first_cause(error: BaseException) -> BaseException:
    """Return what an exception began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _takes_key(kind: Any) -> bool:
    # Not of the class itself: that has the signature of its metaclass, Haystack's, which takes anything.
    return API_KEY in inspect.signature(kind.__init__).parameters


def _api_key_components(components: dict[str, Any], manifest: Manifest) -> tuple[str, ...]:
    """Return the components that take the caller's key: those named, or else the only one that has a key at all."""
    if manifest.api_key_components is not None:
        for name in manifest.api_key_components:
            if name not in components:
                raise PipelineFileError(f"`{BLOCK}.api_key_components`: there is no component {name!r}")
        return manifest.api_key_components
    with_key = [name for name, component in components.items() if _has_key(component)]
    return tuple(with_key) if len(with_key) == 1 else ()


def _has_key(serialized: object) -> bool:
    """Whether a component, or one inside it such as an Agent's model, has a parameter for a key; not its store."""
    if not isinstance(serialized, dict):
        return False
    values = cast("dict[str, Any]", serialized)
    return API_KEY in values or any(_has_key(value) for name, value in values.items() if name != "document_store")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
