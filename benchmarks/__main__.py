"""Run every benchmark of this folder and write one CSV each: ``python -m benchmarks [NAME ...]``.

A benchmark is a module with ``run() -> list[dict]``; each row names the machine and the versions it was measured with.
"""

from __future__ import annotations

import csv
import importlib
import pkgutil
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all of them."""
    modules = {
        info.name: module
        for info in pkgutil.iter_modules([str(Path(__file__).parent)])
        if info.name != "__main__" and hasattr(module := importlib.import_module(f"benchmarks.{info.name}"), "run")
    }
    RESULTS.mkdir(exist_ok=True)
    for name in names or modules:
        if name not in modules:
            sys.exit(f"There is no benchmark {name!r}. Known: {', '.join(modules)}.")
        print(f"== {name}", flush=True)
        rows = modules[name].run()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            print("  " + ", ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
