"""The tokens' file: whom it names, what they may, and how it changes under a service that runs."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from haystream_service.errors import IdentityFileError, NotAuthenticated
from haystream_service.files import fingerprint_of
from haystream_service.identity import tokens_file, watched_file
from haystream_service.identity.authentication import authenticating
from haystream_service.identity.principal import Principal, Rights
from haystream_service.identity.tokens_format import TokensFormatError, callers_of
from haystream_service.settings import Settings
from tests.issuers import SECONDS, Heard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from haystream_service.identity.authentication import Authenticator
    from haystream_service.identity.callers import Callers

TOKEN = "hs_" + "a" * 43
OTHER = "hs_" + "b" * 43


def sha256_of(token: str) -> str:
    """Return a token as the file has it."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def listing(**principals: Any) -> str:
    """Return a file with these principals."""
    return yaml.safe_dump({"principals": principals})


BILLING = listing(billing={"tokens": [sha256_of(TOKEN)]})


@asynccontextmanager
async def asking(file: Path, heard: Heard | None = None, **settings: Any) -> AsyncGenerator[Authenticator]:
    """Authenticate by a file alone."""
    configured = Settings(tokens_file=file, **settings)
    async with authenticating(configured, (heard or Heard()).log) as authenticator:
        yield authenticator


async def caller(authenticator: Authenticator, token: str = TOKEN) -> Principal:
    """Return who has a token."""
    return await authenticator.principal_of([f"Bearer {token}"], None)


async def refusal(authenticator: Authenticator, token: str = TOKEN) -> str:
    """Return why a token is refused."""
    with pytest.raises(NotAuthenticated) as caught:
        await caller(authenticator, token)
    return caught.value.reason


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in which `billing` has a token."""
    file = tmp_path / "tokens.yaml"
    file.write_text(BILLING)
    return file


async def test_a_token_calls_as_the_name_that_its_hash_stands_under(file: Path) -> None:
    """Who is listed with nothing but a token may everything."""
    async with asking(file) as authenticator:
        assert await caller(authenticator) == Principal("billing", Rights())


async def test_a_caller_has_the_rights_that_the_file_gives_it(file: Path) -> None:
    """All of them, each as it is written."""
    rights = {"pipelines": ["local", "rag"], "max_runs": 10, "runs_per_minute": 60, "own_api_key": False}
    file.write_text(listing(billing={"tokens": [sha256_of(TOKEN)], **rights}))  # noqa: ASYNC240 - a small one
    async with asking(file, principal_max_runs=3) as authenticator:
        assert (await caller(authenticator)).rights == Rights(frozenset({"local", "rag"}), 10, 60, own_api_key=False)


async def test_where_the_file_says_no_limit_the_settings_do(file: Path) -> None:
    """Each limit by itself."""
    file.write_text(listing(billing={"tokens": [sha256_of(TOKEN)], "max_runs": 10}))  # noqa: ASYNC240 - a small one
    async with asking(file, principal_max_runs=3, principal_runs_per_minute=7) as authenticator:
        assert (await caller(authenticator)).rights == Rights(max_runs=10, runs_per_minute=7)


async def test_an_empty_list_of_pipelines_is_none_and_not_all(file: Path) -> None:
    """The difference between nothing and everything."""
    file.write_text(listing(billing={"tokens": [sha256_of(TOKEN)], "pipelines": []}))  # noqa: ASYNC240 - a small one
    async with asking(file) as authenticator:
        assert not (await caller(authenticator)).rights.may_call("local")


async def test_a_token_that_nobody_has_is_refused(file: Path) -> None:
    """The hash itself, a token with a letter more and one with a letter less among them."""
    async with asking(file) as authenticator:
        for wrong in (OTHER, TOKEN + "a", TOKEN[:-1], TOKEN.upper(), sha256_of(TOKEN).removeprefix("sha256:")):
            assert await refusal(authenticator, wrong) == "TOKEN_INVALID"


async def test_of_a_name_with_two_tokens_both_are_good(file: Path) -> None:
    """So that a token is changed without an outage; in either case of the hash's digits."""
    tokens = [sha256_of(TOKEN), "sha256:" + sha256_of(OTHER).removeprefix("sha256:").upper()]
    file.write_text(listing(billing={"tokens": tokens}))  # noqa: ASYNC240 - a small one
    async with asking(file) as authenticator:
        assert await caller(authenticator, TOKEN) == await caller(authenticator, OTHER)


def written(file: Path, content: str) -> None:
    """Write over a file."""
    file.write_text(content)


def replaced(file: Path, content: str) -> None:
    """Put another file into its place, as editors do."""
    other = file.with_suffix(".new")
    other.write_text(content)
    other.rename(file)


def exchanged(file: Path, content: str) -> None:
    """Exchange the link that the file's own link leads through, as Kubernetes does."""
    data = file.parent / "..data"
    folder = file.parent / f"..{len(list(file.parent.iterdir()))}"
    folder.mkdir()
    (folder / file.name).write_text(content)
    link = file.parent / "..data_tmp"
    link.symlink_to(folder.name)
    link.rename(data)
    if not file.is_symlink():
        file.unlink(missing_ok=True)
        file.symlink_to(f"..data/{file.name}")


@pytest.mark.parametrize("put", [written, replaced, exchanged])
async def test_a_changed_file_is_in_force_for_the_next_call(file: Path, put: Callable[[Path, str], None]) -> None:
    """A token that is gone is good no more, a new one is, and rights are the new ones, however the file is changed."""
    put(file, BILLING)
    heard = Heard()
    async with asking(file, heard) as authenticator:
        assert (await caller(authenticator)).rights.max_runs is None
        put(file, listing(billing={"tokens": [sha256_of(OTHER)], "max_runs": 2}))
        assert "in force" in (await heard.next())["event"]
        assert await refusal(authenticator, TOKEN) == "TOKEN_INVALID"
        assert await caller(authenticator, OTHER) == Principal("billing", Rights(max_runs=2))


def behind_a_link(file: Path) -> Path:
    """Put the file into another folder and a link into its place; return where it is."""
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()
    link = file.parent / "link"
    link.symlink_to(elsewhere)
    there = file.rename(elsewhere / file.name)
    file.symlink_to(link / file.name)
    return there


async def test_what_no_watching_tells_of_is_in_force_with_the_next_glance(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link may lead anywhere: the very call that finds the change goes by it, and so does each later one."""
    there = await asyncio.to_thread(behind_a_link, file)
    async with asking(file) as authenticator:
        await asyncio.to_thread(written, there, listing(billing={"tokens": [sha256_of(OTHER)], "max_runs": 2}))
        monkeypatch.setattr(watched_file, "GLANCE_SECONDS", 0)
        assert await refusal(authenticator, TOKEN) == "TOKEN_INVALID"
        assert (await caller(authenticator, OTHER)).name == "billing"
        await asyncio.to_thread(written, there, listing())
        assert await refusal(authenticator, OTHER) == "TOKEN_INVALID"


async def test_a_glance_is_had_once_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many call."""
    glances = 0

    def count(_: Path) -> tuple[int, ...]:
        nonlocal glances
        glances += 1
        return ()

    monkeypatch.setattr(watched_file, "GLANCE_SECONDS", SECONDS * 10)
    async with asking(file) as authenticator:
        monkeypatch.setattr(watched_file, "fingerprint_of", count)
        for _ in range(100):
            await caller(authenticator)
    assert glances == 1


@pytest.mark.parametrize("patience_seconds", [0, SECONDS])
async def test_a_disk_that_hangs_holds_up_no_more_than_who_asks_in_that_second(
    file: Path, monkeypatch: pytest.MonkeyPatch, patience_seconds: float
) -> None:
    """All else goes on: the look is had in a thread, and after a while nobody waits for it any more."""
    monkeypatch.setattr(watched_file, "PATIENCE_SECONDS", patience_seconds)
    loop, is_asked, proceed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    has_proceeded: asyncio.Future[bool] = loop.create_future()

    def hang(file: Path) -> tuple[int, ...]:
        loop.call_soon_threadsafe(is_asked.set)
        loop.call_soon_threadsafe(has_proceeded.set_result, proceed.wait(SECONDS))
        return fingerprint_of(file)

    async with asking(file) as authenticator:
        monkeypatch.setattr(watched_file, "fingerprint_of", hang)
        calls = [asyncio.create_task(caller(authenticator)) for _ in range(3)]
        await is_asked.wait()
        assert [call.done() for call in calls] == [patience_seconds == 0] * 3
        proceed.set()
        for call in calls:
            assert (await call).name == "billing"
        assert await has_proceeded


async def test_nobody_waits_long_for_a_file_that_takes_long(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said before stays in force until it is read, and a glance more does not begin to read it twice."""
    there = await asyncio.to_thread(behind_a_link, file)
    for name in ("GLANCE_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(watched_file, name, 0)
    proceed, reads = threading.Event(), 0

    def slow(content: bytes, unless_said: Rights) -> Callers:
        nonlocal reads
        reads += 1
        proceed.wait(SECONDS)
        return callers_of(content, unless_said)

    heard = Heard()
    async with asking(file, heard) as authenticator:
        monkeypatch.setattr(tokens_file, "callers_of", slow)
        await asyncio.to_thread(written, there, listing())
        for _ in range(3):
            assert (await caller(authenticator)).name == "billing"
        proceed.set()
        assert "in force" in (await heard.next())["event"]
        assert await refusal(authenticator) == "TOKEN_INVALID"
    assert reads == 1


async def test_a_file_that_goes_wrong_changes_nothing_and_is_named_once(file: Path) -> None:
    """Whoever could call can call. When it is right again the log says so, though it is what it was."""
    heard = Heard()
    async with asking(file, heard) as authenticator:
        await asyncio.to_thread(replaced, file, "principals: [")
        line = await heard.next()
        assert line["level"] == "warning"
        assert line["file"] == str(file)
        assert "line 1" in line["complaint"]
        assert (await caller(authenticator)).name == "billing"
        await asyncio.wait_for(authenticator.look_again(), SECONDS)
        assert heard.lines.empty()
        await asyncio.to_thread(replaced, file, BILLING)
        assert (await heard.next())["level"] == "info"
        assert (await caller(authenticator)).name == "billing"


async def test_a_defect_in_one_reading_hides_nothing_that_changes_after_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged without its words, which may be the file's, and a token that is taken out later is refused."""

    def fail(*_: object) -> None:
        raise LookupError(TOKEN)

    heard = Heard()
    async with asking(file, heard) as authenticator:
        with monkeypatch.context() as broken:
            broken.setattr(tokens_file, "callers_of", fail)
            await asyncio.to_thread(replaced, file, listing())
            line = await heard.next()
            assert line["level"] == "error"
            assert TOKEN not in str(line)
        await asyncio.to_thread(replaced, file, listing(billing={"tokens": [sha256_of(OTHER)]}))
        assert "in force" in (await heard.next())["event"]
        assert await refusal(authenticator, TOKEN) == "TOKEN_INVALID"


async def test_a_file_that_is_gone_changes_nothing(file: Path) -> None:
    """As long as there is none."""
    heard = Heard()
    async with asking(file, heard) as authenticator:
        file.unlink()  # noqa: ASYNC240 - a small one
        assert "cannot be read" in (await heard.next())["complaint"]
        assert (await caller(authenticator)).name == "billing"


HASH = sha256_of(TOKEN)
WRONG = {
    "nothing": ("", "keys and values"),
    "a list": ("[1]", "keys and values"),
    "no principals": ("defaults: {}", "principals: this is missing"),
    "principals of nothing": ("principals:", "principals: keys and values"),
    "no YAML": ("principals: {\n  a: [}", "at line 2, column 7"),
    "not UTF-8": (b"principals: \xff\xfe", "UTF-8"),
    "an object": ("principals: !!python/object:os.system {}", "at line 1"),
    "a bottomless list": ("[" * 5_000, "not YAML"),
    "a date that is none": ("principals: 2024-99-99", "not YAML"),
    "a number of nothing": ("principals: !!int ''", "not YAML"),
    "a truth that is none": ("principals: !!bool maybe", "not YAML"),
    "a time that is none": ("principals: !!timestamp x", "not YAML"),
    "a set of a list": ("principals: !!set [a]", "not YAML"),
    "a key twice": (f"principals:\n  a: {{tokens: [{HASH}]}}\n  a: {{tokens: []}}", "a key twice at line 2"),
    "an unknown key": ("principals: {}\nprincipal: {}", "principal: there is no such key; there are principals, def"),
    "an unknown right": ("principals: {a: {tokens: [], max_run: 1}}", "principals.a.max_run: there is no such key"),
    "tokens of all others": ("principals: {}\ndefaults: {tokens: []}", "defaults.tokens: there is no such key"),
    "a plain token": (f"principals: {{a: {{tokens: [{TOKEN}]}}}}", "principals.a.tokens[0]: this is no hash"),
    "a plain token alone": (f"principals: {{a: {{tokens: {TOKEN}}}}}", "principals.a.tokens: a list is wanted"),
    "a token as a name": (f"principals: {{{TOKEN}: {{tokens: []}}}}", "principals.(not shown here): a name has"),
    "a token as a key": (f"principals: {{a: {{{TOKEN}: 1}}}}", "principals.a.(not shown here): there is no such"),
    "a token at the top": (f"{TOKEN}: 1", "principals: this is missing"),
    "half a hash": ("principals: {a: {tokens: ['sha256:abc']}}", "principals.a.tokens[0]: this is no hash"),
    "a number as a token": ("principals: {a: {tokens: [123]}}", "principals.a.tokens[0]: this is no hash"),
    "a hash of two": (f"principals: {{a: {{tokens: [{HASH}]}}, b: {{tokens: [{HASH}]}}}}", "principals.b: one of its"),
    "no tokens": ("principals: {a: {max_runs: 1}}", "principals.a: there are no `tokens`"),
    "tokens of a JWT": (f"principals: {{'jwt:a': {{tokens: [{HASH}]}}}}", "principals.jwt:a: such a caller has no"),
    "a name with a space": ("principals: {'a b': {tokens: []}}", "principals.a b: a name has 1 to 64"),
    "a name with a line": ('principals: {"a\\nb": {tokens: []}}', "principals.(not shown here): a name has"),
    "the name of all": ("principals: {anyone: {tokens: []}}", "principals.anyone: `anyone` is what all are called"),
    "a name of another kind": ("principals: {'ldap:a': {max_runs: 1}}", "principals.ldap:a: a name has"),
    "a DNS name in capitals": ("principals: {'dns:A': {max_runs: 1}}", "dns:NAME in small letters"),
    "a number as a name": ("principals: {1: {tokens: []}}", "principals[1]: text is wanted here"),
    "pipelines of nothing": ("principals: {a: {tokens: [], pipelines: }}", "principals.a.pipelines: nothing follows"),
    "pipelines by a name": ("principals: {a: {tokens: [], pipelines: local}}", "principals.a.pipelines: a list"),
    "an unnamed pipeline": ("principals: {a: {tokens: [], pipelines: ['']}}", "principals.a.pipelines[0]: this is em"),
    "no runs": ("principals: {a: {tokens: [], max_runs: 0}}", "principals.a.max_runs: a number above 0"),
    "runs as text": ("principals: {a: {tokens: [], max_runs: '1'}}", "principals.a.max_runs: a whole number"),
    "runs as truth": ("principals: {a: {tokens: [], runs_per_minute: true}}", "runs_per_minute: a whole number"),
    "perhaps": ("principals: {a: {tokens: [], own_api_key: perhaps}}", "principals.a.own_api_key: true or false"),
    "too much": ("#" * (4 << 20) + "\n", "more than 4194304 bytes"),
}


@pytest.mark.parametrize(("content", "complaint"), WRONG.values(), ids=WRONG)
async def test_a_wrong_file_stops_the_start_with_one_line(file: Path, content: str | bytes, complaint: str) -> None:
    """It names setting, file, place and cure, and shows no token, wherever in the file that is."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())  # noqa: ASYNC240 - a small one
    with pytest.raises(IdentityFileError) as caught:
        async with asking(file):
            pass
    text = str(caught.value)
    assert text.startswith(f"HAYSTREAM_TOKENS_FILE: {file}: ")
    assert complaint in text
    assert text.isprintable()
    assert TOKEN not in text
    assert HASH.removeprefix("sha256:") not in text


async def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """So does a folder that is not there, of which the log may complain as well."""
    for missing in (tmp_path / "tokens.yaml", tmp_path / "no" / "tokens.yaml"):
        with pytest.raises(IdentityFileError, match="cannot be read"):
            async with asking(missing):
                pass


@given(st.binary(max_size=300) | st.text("principals:{}[]&*!|>- \n\"'a0", max_size=300).map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_refused(content: bytes) -> None:
    """No other exception ends the watching of the file."""
    with suppress(TokensFormatError):
        callers_of(content, Rights())
