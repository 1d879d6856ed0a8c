"""Where the question goes: as the owner says, or else by the names of the pipeline's open sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haystream_service.errors import PipelineFileError
from haystream_service.pipelines.files.manifest import BLOCK, QUESTION_NAMES
from haystream_service.pipelines.sockets import named_socket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haystream_service.pipelines.files.manifest import Manifest
    from haystream_service.pipelines.sockets import Socket

    Sockets = Mapping[tuple[str, str], Socket]


def question_sockets(sockets: Sockets, components: Mapping[str, Any], manifest: Manifest) -> list[Socket]:
    """Return the sockets that take the question.

    Raises PipelineFileError where none does, or where several could and nobody said which: with the line to add.
    """
    if manifest.question is not None:
        return _as_said(sockets, manifest)
    able = [socket for socket in sockets.values() if socket.takes_messages or socket.takes_text]
    variables = _variables(able, components)
    for groups in (
        _named_for_it(socket for socket in able if socket.is_mandatory),
        _named_for_it(variables),
        _only_variables(able, components),
    ):
        if found := _the_only_one(groups):
            return [*found, *_of_the_same_name(found, variables)]
    if candidates := variables or [socket for socket in able if socket.is_mandatory]:
        raise _unclear(sorted(candidates, key=lambda socket: socket.path))
    names = ", ".join(name for group in QUESTION_NAMES for name in group)
    raise PipelineFileError(
        f"no input takes the question: leave one open that is named {names}, or say where it goes: "
        f"`{BLOCK}: {{query: component.socket}}`"
    )


def _as_said(sockets: Sockets, manifest: Manifest) -> list[Socket]:
    found = [named_socket(sockets, path, "query") for path in manifest.query or ()]
    for socket in found:
        if not (socket.takes_text or socket.takes_messages):
            raise PipelineFileError(f"`query`: {socket.path} takes neither text nor messages; name an input that does")
    for path in manifest.messages or ():
        socket = named_socket(sockets, path, "messages")
        if not socket.takes_messages:
            raise PipelineFileError(f"`messages`: {path} takes no conversation; put it under `query`")
        found.append(socket)
    return found


def _named_for_it(sockets: Iterable[Socket]) -> list[list[Socket]]:
    """Return those that bear a name of the question's, grouped by what the names mean."""
    listed = list(sockets)
    groups = ([socket for socket in listed if socket.name in names] for names in QUESTION_NAMES)
    return [group for group in groups if group]


def _of_the_same_name(found: list[Socket], variables: list[Socket]) -> list[Socket]:
    """Return the variables besides that are named for the question as well: a template that shows it is to have it."""
    names = {name for group in QUESTION_NAMES for name in group if any(socket.name in group for socket in found)}
    return [socket for socket in variables if socket.name in names and socket not in found]


def _only_variables(sockets: list[Socket], components: Mapping[str, Any]) -> list[list[Socket]]:
    """Return the variables of templates that leave open only one, grouped by name."""
    variables = _variables(sockets, components)
    alone = [socket for socket in variables if sum(other.component == socket.component for other in variables) == 1]
    return [[socket for socket in alone if socket.name == name] for name in dict.fromkeys(s.name for s in alone)]


def _variables(sockets: list[Socket], components: Mapping[str, Any]) -> list[Socket]:
    """Return the variables of prompt builders' templates, which are optional in older Haystacks."""
    return [socket for socket in sockets if socket.name in getattr(components.get(socket.component), "variables", ())]


def _the_only_one(groups: list[list[Socket]]) -> list[Socket]:
    """Return the only group; nothing where there is none. Raises PipelineFileError where there are several."""
    if len(groups) <= 1:
        return groups[0] if groups else []
    raise _unclear([socket for group in groups for socket in group])


def _unclear(candidates: list[Socket]) -> PipelineFileError:
    paths = ", ".join(socket.path for socket in candidates)
    return PipelineFileError(
        f"it is not clear where the question goes: {paths}. Connect what others are to feed, or say it, in Python as a "
        f"dictionary {BLOCK.upper()}, with one of them or several: `{BLOCK}: {{query: [{paths}]}}`"
    )
