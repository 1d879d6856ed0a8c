"""What a pipeline's file is once it has been read: what builds the pipeline, and what its owner says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from haystream_service.pipelines.files.folder import YAML_ENDINGS
from haystream_service.pipelines.files.python_file import read_python
from haystream_service.pipelines.files.yaml_file import read_yaml

if TYPE_CHECKING:
    from haystack.utils import Secret

    from haystream_service.pipelines.files.folder import PipelineFile
    from haystream_service.pipelines.files.manifest import Manifest


class Source(Protocol):
    """A file that has been read."""

    @property
    def manifest(self) -> Manifest:
        """What the owner says of the pipeline."""
        ...

    @property
    def takes_api_key(self) -> bool:
        """Whether callers may bring a provider's key of their own."""
        ...

    def build(self, api_key: Secret | None = None) -> Any:
        """Build the pipeline, cold, or return an awaitable that does. To be called in a thread: it may take long.

        Raises PipelineFileError, or whatever the file's own code raises.
        """
        ...

    def forget(self) -> None:
        """Let go of what reading the file has left in the process, once its pipelines are closed."""


def read_source(file: PipelineFile) -> Source:
    """Read a pipeline's file, in a thread. Raises PipelineFileError, or whatever the file's own code raises."""
    is_yaml = file.path.suffix in YAML_ENDINGS and not file.path.is_dir()
    return read_yaml(file.path) if is_yaml else read_python(file.name, file.path)
