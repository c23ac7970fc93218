"""One entry of tests/entries.py under atheris; without arguments, the entries' names. See scripts/fuzz."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    if len(sys.argv) == 1:
        from entries import ENTRIES

        print(*ENTRIES, sep="\n")
        return
    import atheris

    with atheris.instrument_imports(include=["bedrock", "python_multipart", "entries"]):
        from entries import ENTRIES, SEEDS
    entry = sys.argv.pop(1)
    corpus = Path(sys.argv[-1])
    for number, seed in enumerate(SEEDS[entry]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, ENTRIES[entry])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
