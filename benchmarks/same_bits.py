"""What every method computes, written down, so that a change of shape can prove that it changed no number.

    python -m benchmarks.same_bits record before.json        # before the change
    python -m benchmarks.same_bits compare before.json       # after it; exit status 1 where a bit differs
    python -m benchmarks.same_bits compare before.json agw   # only some cases

A case trains a recipe with a tiny network on drawn people for ten steps (five in each stage before the last), on one
thread of the CPU with fixed seeds. ``demo`` is ``gloam demo`` as it is, which takes minutes, and ten logged steps of
its recipe beside it. ``recipes`` is every recipe that comes with gloam as ``gloam train RECIPE --dry-run`` resolves
it; a key that is new is no difference. Of each case is written down:

* losses: every line that ``log.txt`` has about a step, and every row of ``metrics.csv`` except times. The lines print
  means of the epoch so far with four decimals; the rows give each epoch's means with all their digits.
* features: shape, SHA-256 of the bytes and first values of what ``gloam extract`` gives for query and gallery, and
  SHA-256 of the columns beside them.
* results: ``results.json`` of training, ``evaluation.json`` of ``gloam evaluate``; the demo's table.

Nothing here imports gloam: all goes through the command line and the files it writes, so the same script measures any
layout of the package (of the checkout that this file lies in). Values can only be compared on the same machine with
the same versions: other processors and other releases of torch round differently. ``compare`` names what differs there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.machine import PACKAGES, machine_info

REPOSITORY = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 96, 48
PARTS = ("losses", "features", "results")
# Layout -> people and pictures (tracklets) per person and camera.
LAYOUTS = {"sysu_mm01": (16, 2), "regdb": (12, 4), "llcm": (16, 2), "hitsz_vcm": (12, 1), "market1501": (16, 3)}
TINY = "--method.arch tiny"
# Clusters of few pictures need small neighbourhoods.
CLUSTERS = "--method.k1 5 --method.k2 2 --method.min-samples 2 --method.eps 0.7"
MODULES = "--method.k1 5 --method.min-samples 2 --method.eps 0.3"
BATCH = "--sampler.identities 4 --sampler.instances 2"
PRETEXT = "--sampler.batch-size 8"
FINETUNE = (
    "--stages.finetune.method.arch tiny --stages.finetune.train.epochs 2 "
    "--stages.finetune.sampler.identities 4 --stages.finetune.sampler.instances 2"
)
# Case -> recipe and the flags that make it small.
CASES = {
    "base": ("sysu_mm01/base", BATCH),
    "agw": ("sysu_mm01/agw", BATCH),
    "agw_regdb": ("regdb/agw", BATCH),
    "agw_llcm": ("llcm/agw", BATCH),
    "caj": ("sysu_mm01/caj", BATCH),
    "ddag": ("sysu_mm01/ddag", BATCH),
    "cgrnet": ("sysu_mm01/cgrnet", BATCH),
    "cgrnet_released": ("sysu_mm01/cgrnet_released", BATCH),
    "mmgl": ("sysu_mm01/mmgl", PRETEXT),
    "mmgl_agw": ("sysu_mm01/mmgl_agw", f"{PRETEXT} {FINETUNE}"),
    "simsiam": (
        "sysu_mm01/simsiam_base",
        f"{PRETEXT} {FINETUNE} --method.hidden-dim 32 --method.out-dim 32 --method.predictor-dim 8",
    ),
    "ntxent": ("sysu_mm01/ntxent_base", f"{PRETEXT} {FINETUNE} --method.hidden-dim 32"),
    "pf_mgcd": ("sysu_mm01/pf_mgcd", f"{BATCH} --method.num-parts 3 --method.warmup-epochs 0"),
    "pf_mgcd_paired": ("sysu_mm01/pf_mgcd_paired", f"{BATCH} --method.num-parts 3 --method.warmup-epochs 0"),
    "wsl_vireid": (
        "sysu_mm01/wsl_vireid",
        f"{BATCH} --stages.experts.train.epochs 1 --stages.collaboration.train.epochs 2",
    ),
    "wsl_vireid_supervised": ("sysu_mm01/wsl_vireid_supervised", BATCH),
    "m3reid": ("hitsz_vcm/m3reid", BATCH),
    "cluster_contrast": ("market1501/cluster_contrast", f"{BATCH} {CLUSTERS}"),
    "cluster_contrast_infomap": ("market1501/cluster_contrast_infomap", f"{BATCH} {MODULES}"),
    "spcl": ("market1501/spcl", f"{BATCH} {CLUSTERS}"),
    "metaprd": ("market1501/metaprd", f"{BATCH} {CLUSTERS}"),
    "metaprd_gcn": (
        "market1501/metaprd_gcn",
        f"{BATCH} {CLUSTERS} --method.gcn-hidden 16 --stages.train.train.epochs 2 "
        "--stages.gcn_meta.sampler.identities 3 --stages.gcn_meta.sampler.instances 2 "
        "--stages.gcn.sampler.batch-size 8 --stages.gcn.train.iterations 5",
    ),
}  # fmt: skip
STAGED = ("mmgl_agw", "simsiam", "ntxent", "wsl_vireid", "metaprd_gcn")
OPTIONAL = {"simsiam": "lightly", "ntxent": "lightly", "cluster_contrast_infomap": "infomap"}
_STEP = re.compile(r"\S+ epoch \d+ batch \d+/\d+ .*")
_TIMES = ("seconds", "images_per_second")


def training_words(case: str, folder: Path) -> list[str]:
    """``gloam train ...`` of a case; the data lie below ``folder/data``, the run goes to ``folder/<case>``."""
    recipe, flags = CASES[case]
    words = ["train", recipe, "--output", str(folder / case), "--quiet", "--weights", "none"]
    words += ["--data.root", str(folder / "data" / recipe.split("/")[0]), "--data.workers", "0"]
    words += ["--data.height", str(HEIGHT), "--data.width", str(WIDTH)]
    words += ["--train.accelerator", "cpu", "--train.precision", "32", "--train.seed", "3"]
    words += ["--train.iterations", "5", "--train.log-every", "1"]
    words += ["--train.epochs", "1" if case in STAGED else "2"]
    return [*words, *TINY.split(), *flags.split()]


def run_commands(commands: list[list[str]], folder: Path) -> str:
    """Run command lines of gloam one after another in one process and give what they print.

    Raises:
        SystemExit: one of them failed; its last words are shown.
    """
    code = (
        "import json, sys\nfrom gloam.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n    if status := main(words): raise SystemExit(status)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        "GLOAM_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "100000",  # the printed recipe is read again: no line may be broken
        **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")},
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = " | ".join(" ".join(words) for words in commands)
        sys.exit(f"gloam {lines}\nfailed with exit status {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Run one case below ``folder`` and give its losses, features and results."""
    folder.mkdir(parents=True, exist_ok=True)
    if case == "recipes":
        return {"results": read_recipes(folder)}
    if case == "demo":
        run, data, table = folder / "demo" / "run", folder / "demo" / "data", folder / "demo" / "table.json"
        # The demo's own log has no line per step: its recipe runs again for ten steps that are logged.
        ten = ["train", "demo/agw", "--data.root", str(data), "--output", str(folder / "demo_steps"), "--quiet"]
        ten += ["--train.epochs", "1", "--train.iterations", "10", "--train.log-every", "1"]
        first = [["demo", "--output", str(folder / "demo"), "--seed", "0"], ten]
    else:
        layout = CASES[case][0].split("/")[0]
        run, data = folder / case, folder / "data" / layout
        people, images = LAYOUTS[layout]
        draw = ["data", "draw", layout, str(data), "--ids", str(people), "--images", str(images)]
        first = [] if data.exists() else [[*draw, "--height", str(HEIGHT), "--width", str(WIDTH), "--seed", "5"]]
        first.append(training_words(case, folder))
        table = run / "results.json"
    scored = folder / f"{case}_evaluated"
    files = {split: folder / f"{case}_{split}.npz" for split in ("query", "gallery")}
    after = [
        ["extract", str(run), str(data), str(file), "--split", split, "--device", "cpu"]
        for split, file in files.items()
    ]
    after.append(["evaluate", str(run), "--output", str(scored), "--device", "cpu"])
    run_commands([*first, *after], folder)
    return {
        "losses": read_losses(run) | ({"ten": read_losses(folder / "demo_steps")} if case == "demo" else {}),
        "features": {split: read_features(file) for split, file in files.items()},
        "results": {
            "train": read_scores(table),
            "evaluate": read_scores(scored / "evaluation.json"),
        },
    }


def read_scores(path: Path) -> dict[str, Any]:
    """What every version of the results format has."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: content[key] for key in ("notes", "protocols")}


def read_losses(run: Path) -> dict[str, Any]:
    """Lines about steps and rows about epochs of a run folder."""
    lines = (run / "log.txt").read_text(encoding="utf-8").splitlines()
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if key not in _TIMES} for row in csv.DictReader(file)]
    return {"steps": [found[0] for line in lines if (found := _STEP.search(line))], "epochs": rows}


def read_features(file: Path) -> dict[str, Any]:
    """Shape, digests and first values (as ``float.hex``) of an extracted file."""
    with np.load(file) as arrays:
        features = np.ascontiguousarray(arrays["features"])
        columns = {key: arrays[key].tolist() for key in ("path", "frames", "pid", "cam", "modality")}
    return {
        "shape": list(features.shape),
        "dtype": str(features.dtype),
        "sha256": hashlib.sha256(features.tobytes()).hexdigest(),
        "first": [float(value).hex() for value in features.ravel()[:8]],
        "columns": hashlib.sha256(json.dumps(columns).encode()).hexdigest(),
    }


def read_recipes(folder: Path) -> dict[str, Any]:
    """Every recipe as a dry run prints it, with the data's folder left out."""
    table = run_commands([["recipes"]], folder)
    names = list(dict.fromkeys(re.findall(r"\b[a-z0-9_]+/[a-z0-9_]+\b", table)))
    listed = run_commands([["train"]], folder).split()
    names = [name for name in names if name in listed]
    found = {}
    printed = run_commands([words for name in names for words in (["train", name, "--dry-run"], ["--version"])], folder)
    for name, text in zip(names, re.split(r"^gloam \d\S*$", printed, flags=re.MULTILINE), strict=False):
        found[name] = yaml.safe_load(text)
    return found


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two measurements differ: one line each. What only ``after`` has is no difference inside a mapping."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in before
            for line in (
                differences(before[key], after[key], f"{place}/{key}") if key in after else [f"{place}/{key} is gone"]
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (old, new) in pairs for line in differences(old, new, f"{place}/{i}")]
    same = before == after or (before != before and after != after)  # a NaN equals a NaN
    return [] if same else [f"{place}: {json.dumps(before)} -> {json.dumps(after)}"]


def record(file: Path, cases: list[str], folder: Path) -> None:
    """Measure cases and write ``file`` after each, so that a stop loses only the case that was running."""
    if file.exists():
        sys.exit(f"{file} exists. Delete it, or give another name.")
    content: dict[str, Any] = {"machine": machine(), "cases": {}}
    for case in cases:
        content["cases"][case] = measure(case, folder)
        temporary = file.with_name(f"{file.name}.part")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(file)
        print(f"{case}: recorded", flush=True)


def compare(file: Path, cases: list[str], folder: Path) -> int:
    """Measure again and print what is equal; 1 where something differs."""
    content = json.loads(file.read_text(encoding="utf-8"))
    cases = cases or list(content["cases"])
    if unknown := [case for case in cases if case not in content["cases"]]:
        sys.exit(f"{file} has no case {', '.join(unknown)}. It has {', '.join(content['cases'])}.")
    for line in differences(content["machine"], machine(), "machine"):
        print(f"warning: recorded elsewhere, so bits may differ: {line}")
    print(f"{'':26}" + "".join(f"{part:12}" for part in PARTS), flush=True)
    found: list[str] = []
    for case in cases:
        before, after = content["cases"][case], measure(case, folder)
        lines = {part: differences(before[part], after[part], f"{case}/{part}") for part in PARTS if part in before}
        words = ["-" if part not in lines else "different" if lines[part] else "equal" for part in PARTS]
        print(f"{case:26}" + "".join(f"{word:12}" for word in words), flush=True)
        for part in lines.values():
            found += part[:5] + ([f"... and {len(part) - 5} more"] if len(part) > 5 else [])
    print("\n".join(found))
    return 1 if found else 0


def machine() -> dict[str, str]:
    """What the bits depend on beside the code."""
    return {key: value for key, value in machine_info(1, PACKAGES).items() if key != "load"}


def known_cases(is_installed: Callable[[str], bool] | None = None) -> list[str]:
    """All cases that the installed packages allow; the long ones last."""
    from importlib.util import find_spec

    check = is_installed or (lambda name: find_spec(name) is not None)
    return [*(case for case in CASES if case not in OPTIONAL or check(OPTIONAL[case])), "recipes", "demo"]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path, help="JSON file to write or to compare with")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(known_cases())}")
    parser.add_argument("--keep", type=Path, help="new folder for data and runs (default: a temporary one)")
    options = parser.parse_args(arguments)
    if unknown := [case for case in options.cases if case not in known_cases()]:
        sys.exit(f"There is no case {', '.join(unknown)} here. Known: {', '.join(known_cases())}.")
    if options.keep is not None and options.keep.exists():
        sys.exit(f"{options.keep} exists. Give a new folder.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        if options.action == "compare":
            return compare(options.file, options.cases, folder)
        record(options.file, options.cases or known_cases(), folder)
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
