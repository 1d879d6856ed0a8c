"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    "grpcio",
    "protobuf",
    "haystack-ai",
    "openai",
    "hayhooks",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
)


def machine() -> dict[str, str]:
    """Describe this machine."""
    gibibytes = psutil.virtual_memory().total / 1024**3
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{gibibytes:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    """Return the versions of all that matters."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
