"""Kill -9 at any moment of a write: what is at the bundle's place is whole, or it is not there."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from serving.core.bundle import Bundle
from tests.bundles import tiny_bundle

_WRITER = """
import dataclasses, sys
from pathlib import Path
from serving.core.bundle import Bundle, write_bundle
first, out = Path(sys.argv[1]), Path(sys.argv[2])
bundle = Bundle.open(first)
files = {name: bundle.path(name) for name in bundle.card.files}
files["padding.bin"] = bytes(4_000_000)  # wide enough for a kill to hit
print("go", flush=True)
number = 0
while True:
    number += 1
    write_bundle(out, dataclasses.replace(bundle.card, run_id=str(number)), files)
"""


def test_a_killed_write_leaves_no_half_bundle(tmp_path: Path) -> None:
    first = tiny_bundle(tmp_path / "first").root
    out = tmp_path / "places" / "bundle"
    rng = random.Random(0)
    seen = interrupted = 0
    takes = 0.0
    for attempt in range(40):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(first), str(out)], stdout=subprocess.PIPE, cwd=Path.cwd()
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"go\n"
            if takes:
                time.sleep(rng.uniform(0.0, 3 * takes))
            else:
                # The first one is let write a bundle, which says how long that takes on this machine.
                began = time.monotonic()
                while not out.exists():
                    time.sleep(0.001)
                takes = time.monotonic() - began
        finally:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        left = [path for path in out.parent.iterdir() if path.name != "bundle"] if out.parent.exists() else []
        # Whatever a kill left lies under a hidden temporary name, never where a bundle is looked for.
        assert all(path.name.startswith(".bundle.") for path in left)
        interrupted += bool(left)
        if out.exists():
            assert Bundle.open(out).card.run_id is not None
            seen += 1
        if attempt >= 7 and seen and interrupted:
            break
    assert seen
    assert interrupted
