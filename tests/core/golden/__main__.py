"""Write the golden files of this Python: `python -m tests.core.golden`, once for each minor."""

from __future__ import annotations

import json

from tests.core.golden.keys import DIGESTS, KEYS, found_digests, found_keys

for file, found in ((DIGESTS, found_digests()), (KEYS, found_keys())):
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{file.name}: {len(found)} digests")
