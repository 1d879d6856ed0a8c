"""The benchmark itself: each row can be run alone, and what does not deliver does not count."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.conftest import ROOT


async def benchmark(*arguments: str) -> tuple[int | None, str]:
    """Run the benchmark; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", *arguments),
        cwd=ROOT,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_row_can_be_run_alone() -> None:
    """Its contestants deliver every word over a real connection, and its targets are judged."""
    code, output = await benchmark("burst-mock-1", "--quick", "--contestants", "in-process,haystream", "--no-profiles")
    assert code == 0, output
    assert "Haystream over gRPC" in output
    assert "at least half of Haystack in process" in output


@pytest.mark.timeout(300)  # five rows, each with a service and a gateway to start
async def test_the_gateway_rows_can_be_run_together() -> None:
    """Its readers get every word from it, those who stopped reading included, and every reset is noticed."""
    rows = ("gateway-burst-20", "gateway-delay", "gateway-open", "gateway-stalled", "gateway-reset")
    code, output = await benchmark(*rows, "--quick", "--contestants", "gateway")
    assert code == 0, output
    assert output.count("Haystream through the gateway") == len(rows)
    assert "| every one noticed | 0 % of resets | yes |" in output


async def test_the_rows_can_be_listed() -> None:
    """With who takes part in each."""
    code, output = await benchmark("--list")
    assert code == 0, output
    names = {"burst-mock-1", "paced-1000", "idle", "slow-reader", "departure-sync", "churn", "gateway-reset"}
    assert names <= set(output.split())
