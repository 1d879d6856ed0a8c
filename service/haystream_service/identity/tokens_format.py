"""What the tokens' file may say: YAML with names, hashes of their tokens, and rights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError
from pydantic import field_validator as validates

from haystream_service.identity.callers import TOKEN_PREFIX, Callers
from haystream_service.identity.principal import ANYONE, Rights

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_TOKENS_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHERS_NAME = re.compile(r"jwt:.{1,200}|spiffe://[^\s]+|dns:[^\sA-Z]+")
_LIKE_A_TOKEN = re.compile(rf"{TOKEN_PREFIX}.*|[A-Za-z0-9_+=-]{{32,}}|.{{300,}}", re.DOTALL)

# What pydantic calls a complaint, in the words of those who write the file.
_WORDS = {
    "dict_type": "keys and values are wanted here",
    "model_type": "keys and values are wanted here",
    "list_type": "a list is wanted here, such as [one, two]",
    "string_type": "text is wanted here; put it into quotes",
    "string_too_short": "this is empty; write a name",
    "int_type": "a whole number is wanted here",
    "greater_than": "a number above 0 is wanted here; to let a caller run nothing, give it `pipelines: []`",
    "bool_type": "true or false is wanted here",
}


# Beside its own errors: what PyYAML's readers of single values lead to, of `!!int ''` or `!!timestamp x`.
_WRONG = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class TokensFormatError(Exception):
    """The file is wrong. The text says where, and the cure, and shows nothing that could be a token."""


def _digest(value: object) -> bytes:
    parts = _HASH.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError(
            "this is no hash of a token, which is `sha256:` and 64 hexadecimal digits; `haystream-token NAME` makes a "
            "token and prints its hash. If it is a token itself, others may have read it: take a new one"
        )
    return bytes.fromhex(parts[1])


def tokens_name(name: str) -> str:
    """Return the name of somebody with tokens. Raises ValueError; with no colon it cannot be anybody else's."""
    if not _TOKENS_NAME.fullmatch(name) or name.startswith(TOKEN_PREFIX):
        raise ValueError("a name has 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, and is no token")
    if name == ANYONE.name:  # whose runs and readers are not counted as one caller's
        raise ValueError(f"`{ANYONE.name}` is what all are called where nobody is asked who calls; take another name")
    return name


def _name(name: str) -> str:
    if not _OTHERS_NAME.fullmatch(name):
        try:
            return tokens_name(name)
        except ValueError as error:
            raise ValueError(f"{error}; or it is jwt:CLAIM, spiffe://ID or dns:NAME in small letters") from None
    return name


class _Rights(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    pipelines: list[Annotated[str, Field(min_length=1)]] | None = None
    max_runs: PositiveInt | None = None
    runs_per_minute: PositiveInt | None = None
    own_api_key: bool = True

    @validates("*", mode="before")
    @classmethod
    def _says_something(cls, value: object) -> object:
        """Refuse a key with nothing behind it: of `pipelines:` whose lines are all comments "all" is not meant."""
        if value is None:
            raise ValueError("nothing follows; write a value ([] is an empty list), or leave the key out")
        return value

    def over(self, unless_said: Rights) -> Rights:
        """Return the rights, with those of the settings where nothing is said."""
        return Rights(
            pipelines=None if self.pipelines is None else frozenset(self.pipelines),
            max_runs=self.max_runs or unless_said.max_runs,
            runs_per_minute=self.runs_per_minute or unless_said.runs_per_minute,
            own_api_key=self.own_api_key,
        )


class _Principal(_Rights):
    tokens: list[Annotated[bytes, BeforeValidator(_digest)]] = []


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    principals: dict[Annotated[str, AfterValidator(_name)], _Principal]
    defaults: _Rights = _Rights()


class _Loader(yaml.SafeLoader):
    """YAML that says nothing twice: of two equal keys the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, None, node.start_mark)
        return super().construct_mapping(node, deep)


def callers_of(content: bytes, unless_said: Rights) -> Callers:
    """Return whom a file names, with the settings' limits for those of whom it says none. Raises TokensFormatError."""
    try:
        file = _File.model_validate(_yaml(content))
    except ValidationError as error:
        raise TokensFormatError(_complaint_about(error)) from None
    return Callers(
        names=_names(file),
        rights={name: principal.over(unless_said) for name, principal in file.principals.items()},
        others=file.defaults.over(unless_said),
    )


def _yaml(content: bytes) -> object:
    try:
        return yaml.load(content, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:  # whose own words show what is written there
        mark = error.problem_mark
        where = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise TokensFormatError(f"this is not YAML, or has a key twice{where}; mend it there") from None
    except _WRONG:
        raise TokensFormatError(
            "this is not YAML in UTF-8, or has a value that is none of its type; write it anew"
        ) from None


def _names(file: _File) -> dict[bytes, str]:
    names: dict[bytes, str] = {}
    for name, principal in file.principals.items():
        place = _shown(["principals", name])
        if principal.tokens and ":" in name:
            raise TokensFormatError(f"{place}: such a caller has no tokens in this file; remove `tokens`")
        if "tokens" not in principal.model_fields_set and ":" not in name:
            cure = "`haystream-token NAME` makes one; or write jwt:, spiffe:// or dns: before the name"
            raise TokensFormatError(f"{place}: there are no `tokens`, so that nobody could call as it; {cure}")
        for digest in principal.tokens:
            if (other := names.setdefault(digest, name)) != name:
                other = _shown(["principals", other])
                raise TokensFormatError(f"{place}: one of its tokens is one of {other}, too; give it another")
    return names


def _complaint_about(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, place = first["type"], first["loc"]
    if kind == "extra_forbidden":
        words = f"there is no such key; there are {', '.join(_keys_at(place))}"
    elif kind == "missing":
        words = "this is missing; write `principals: {}` if there are none"
    else:
        words = _WORDS.get(kind, first["msg"].removeprefix("Value error, "))
    return f"{_shown(place)}: {words}" if place else words


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    if len(place) == 1:
        return list(_File.model_fields)
    return list((_Principal if place[0] == "principals" else _Rights).model_fields)


def _shown(place: Iterable[int | str]) -> str:
    """Return a place as its path, without what could be a token at the wrong place."""
    parts = [part for part in place if part != "[key]"]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_part(part)}" for part in parts).removeprefix(".")


def _part(part: str) -> str:
    return part if part.isprintable() and not _LIKE_A_TOKEN.fullmatch(part) else "(not shown here)"
