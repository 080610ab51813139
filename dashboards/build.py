"""Writes the dashboards beside this file: ``python -m dashboards.build``."""

from __future__ import annotations

import json
from pathlib import Path

from dashboards.control_plane import control_plane
from dashboards.node_identity import node_identity
from dashboards.offload import offload
from dashboards.virtual_functions import virtual_functions


def dashboards() -> dict[str, str]:
    """The text of each file, by its name."""
    made = {
        "node-identity.json": node_identity(),
        "hardware-offload.json": offload(),
        "ovn-control-plane.json": control_plane(),
        "virtual-functions.json": virtual_functions(),
    }
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for name, text in dashboards().items():
        (Path(__file__).parent / name).write_text(text)
