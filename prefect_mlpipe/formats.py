"""Formats of your own: how values of a type become bytes in the store.

    class Png(Format):
        name, suffix = "png", ".png"

        def accepts(self, value): ...   # whether it may take this value
        def dump(self, value): ...      # its bytes, in one part or several
        def load(self, data): ...       # the value again

    register_format(Png())

Register it at the top of the module that defines the type or the steps: then it is known wherever
they run, since a worker imports that module too. `docs/formats.md` has a complete example.

A format is asked before any of ours. It takes a value only if what `load` gives has its digest;
else the value goes the way it would have gone. How a value is stored is in no key.
"""

from prefect_mlpipe.core.formats.base import Bytes, Chunks, Format, Part
from prefect_mlpipe.core.formats.registry import register_format

__all__ = ["Bytes", "Chunks", "Format", "Part", "register_format"]
