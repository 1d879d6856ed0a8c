"""Which generation of Haystack is installed, the pipelines that it has, and what these are known to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import haystack

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """A pipeline's file, and what is to be expected of it. `speaker` is the component that speaks.

    `on_loop`: that one need not be waited for when a run is stopped. `steps`: Haystack yields outputs component by
    component. `conversation`: the pipeline takes all messages, not one question.
    """

    file: str
    speaker: str = "llm"
    on_loop: bool = False
    steps: bool = True
    conversation: bool = False
    documents: bool = False
    tools: bool = False

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return Path(self.file).stem

    @property
    def path(self) -> Path:
        """The pipeline's file."""
        return HERE / GENERATION.folder / self.file


@dataclass(frozen=True)
class Generation:
    """A generation of Haystack. `speakers` have OpenAI's model, `actors` do what their question says."""

    folder: str
    speakers: tuple[Kind, ...]
    actors: tuple[Kind, ...]
    names_failed_component: bool = True
    warnings: tuple[str, ...] = ()


def _installed() -> Generation:
    if hasattr(haystack.Pipeline, "run_async_generator"):
        return Generation(
            folder="pipelines_34",
            speakers=(
                Kind("pipeline.py", on_loop=True, documents=True),
                Kind("agent.py", speaker="agent", on_loop=True, conversation=True, tools=True),
                Kind("from_yaml.yaml", on_loop=True),
            ),
            actors=(Kind("actor.py", speaker="actor"),),
        )
    if hasattr(haystack, "AsyncPipeline"):
        return Generation(
            folder="pipelines_231",
            speakers=(
                Kind("async_chat.py", on_loop=True, documents=True),
                Kind("async_generator.py", documents=True),
                Kind("chat.py", steps=False, conversation=True),
                Kind("agent.py", speaker="agent", on_loop=True, conversation=True, tools=True),
                Kind("generator.py", steps=False, documents=True),
                Kind("from_yaml.yaml"),
            ),
            actors=(Kind("async_actor.py", speaker="actor"), Kind("actor.py", speaker="actor", steps=False)),
            warnings=("ignore:The `OpenAIGenerator` component is deprecated:FutureWarning",),
        )
    return Generation(
        folder="pipelines_28",
        speakers=(
            Kind("async_pipeline.py", documents=True),
            Kind("pipeline.py", steps=False, documents=True),
            Kind("from_yaml.yaml"),
        ),
        actors=(Kind("async_actor.py", speaker="actor"), Kind("actor.py", speaker="actor", steps=False)),
        names_failed_component=False,
    )


GENERATION = _installed()
