"""What users send, with everybody asked who they are, a library that quotes it, and the gateway in front."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import httpx

from tests.issuers import AUDIENCE, ISSUER, jwks, signer
from tests.processes import address_of, started
from tests.test_authentication import sha256_of
from tests.test_library_lines import KEY, LOUD, QUERY, RAISED
from tests.test_log_lines import fetched, ready

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = "hs_" + "good" * 11, "hs_" + "evil" * 11


async def test_no_token_and_no_word_shows_up_anywhere(tmp_path: Path) -> None:
    """A good token, a bad one, a JSON Web Token and one that is forged: in no log, metric or answer."""
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "loud.py").write_text(LOUD)
    (tmp_path / "tokens.yaml").write_text(f'principals:\n  billing: {{tokens: ["{sha256_of(GOOD)}"]}}\n')
    (tmp_path / "jwks.json").write_bytes(jwks(signer()))
    signed = signer().token()
    tokens = (GOOD, BAD, signed, f"{signed[:-8]}AAAAAAAA")
    settings = {
        "HAYSTREAM_PIPELINES": str(pipelines),
        "HAYSTREAM_METRICS_LISTEN": "127.0.0.1:0",
        "HAYSTREAM_TOKENS_FILE": str(tmp_path / "tokens.yaml"),
        "HAYSTREAM_JWT_ISSUER": ISSUER,
        "HAYSTREAM_JWT_AUDIENCE": AUDIENCE,
        "HAYSTREAM_JWT_JWKS": str(tmp_path / "jwks.json"),
    }
    async with started("haystream_service", **settings) as service:
        address = await address_of(service)
        metrics, told = await ready(service)
        async with started("haystream_gateway", HAYSTREAM_TARGET=address) as gateway:
            url = f"http://{await address_of(gateway)}"
            codes: list[int] = []
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                for token in tokens:
                    asked = {"query": QUERY, "api_key": KEY}
                    answer = await http.post("/chat", json=asked, headers={"authorization": f"Bearer {token}"})
                    codes.append(answer.status_code)
                    told += answer.text
                told += (await http.get("/metrics")).text
            gateway.send_signal(signal.SIGTERM)
            told += (await gateway.communicate())[1].decode()
        told += await fetched(metrics)
        service.send_signal(signal.SIGTERM)
        told += (await service.communicate())[1].decode()
    assert codes == [200, 401, 200, 401]
    assert told.count("a library's line") == 2 * 3 + 1  # Python's own warns once
    assert told.count("answered") >= len(tokens)
    assert told.count("peer=127.0.0.1") == 2
    assert 'haystream_refusals_total{reason="TOKEN_INVALID"} 2.0' in told
    for marker in (QUERY, KEY, RAISED, *tokens, signed.rpartition(".")[2]):
        assert marker not in told
