"""What only a machine with an NVIDIA GPU can show: `pytest -m gpu tests/gpu`.

Needs the extra [gpu], and cupy, cudf and torch for what they are asked for:
`pip install cupy-cuda12x cudf-cu12 torch`. Without a GPU everything here is skipped.
"""

from __future__ import annotations

import functools
import shutil
import subprocess


@functools.cache
def devices() -> tuple[str, ...]:
    """The UUIDs of the GPUs of this machine."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return tuple(done.stdout.split()) if done.returncode == 0 else ()


WITHOUT = "there is no NVIDIA GPU on this machine: nvidia-smi is missing or lists none"
