"""What becomes of the parameters of a completion: a setting of its generators, nothing, or a refusal in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from haystream_gateway.problems import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Promise:
    """What a parameter asks for that no pipeline can be held to; `unasked` are the values that ask for nothing."""

    words: str
    unasked: tuple[Any, ...] = ()


# Hints for whoever bills, caches or watches: an answer without them is the same answer.
_HINTS = frozenset(
    {
        *("user", "safety_identifier", "metadata"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "prediction"),
    }
)

_OWN_TOOLS = Promise("a pipeline brings its own tools; leave it out")
_TEXT_ALONE = Promise("answers are text; leave it out", (["text"],))
_PROMISES = {
    "tools": replace(_OWN_TOOLS, unasked=([],)),
    "tool_choice": replace(_OWN_TOOLS, unasked=("none", "auto")),
    "parallel_tool_calls": replace(_OWN_TOOLS, unasked=(True, False)),
    "functions": replace(_OWN_TOOLS, unasked=([],)),
    "function_call": _OWN_TOOLS,
    "audio": _TEXT_ALONE,
    "modalities": _TEXT_ALONE,
    "n": Promise("a run gives one answer; expected 1", (1,)),
    "logprobs": Promise("there are no logprobs here; leave it out", (False,)),
    "top_logprobs": Promise("there are no logprobs here; leave it out", (0,)),
    "store": Promise("completions are not stored here; leave it out", (False,)),
    "service_tier": Promise("there are no tiers here; leave it out", ("auto", "default")),
    "moderation": Promise("there is no moderation here; leave it out"),
    "web_search_options": Promise("a pipeline searches by itself; leave it out"),
}


def generation_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are settings of a generation: the pipeline's owner says which of them are taken.

    Raises Rejection that names those which promise what cannot be kept.
    """
    wrong = [
        (name, promise.words)
        for name, promise in _PROMISES.items()
        if name in parameters and parameters[name] not in promise.unasked
    ]
    if wrong:
        raise invalid(*wrong)
    return {name: value for name, value in parameters.items() if name not in _HINTS and name not in _PROMISES}
