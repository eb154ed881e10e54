"""Two processes, one signal: both stop after the same batch, and the run goes on with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gloam.inference.checkpoint import Checkpoint
from tests.training.test_interruption import same_end

SCRIPT = """
import os, signal, sys
from pathlib import Path
from gloam.interruption import Interrupted
from gloam.methods import get_method
from gloam.training.run import train
from tests.training.tiny import tiny_recipe

if __name__ == "__main__":
    root, output, action = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    cls, calls = get_method("agw"), []
    original = cls.training_step

    def step(self, batch):
        calls.append(1)
        if action == "stop" and len(calls) == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    cls.training_step = step
    recipe = tiny_recipe(
        root, method={"name": "agw", "arch": "tiny", "wrt": "exact"}, train={"epochs": 2, "iterations": 3}
    )
    try:
        train(
            recipe,
            output=None if action == "resume" else output,
            resume=output if action == "resume" else None,
            progress=False,
        )
    except Interrupted as stop:
        assert action == "stop" and stop.exit_code == 143, stop
        (output / f"stopped{os.environ['RANK']}").write_text(str(stop))
    if action == "resume":
        assert len(calls) == 1, calls
"""


def _launch(script: Path, *arguments: str) -> None:
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_one_signal_stops_both_and_both_go_on(sysu_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _launch(script, str(sysu_root), str(whole), "train")
    _launch(script, str(sysu_root), str(parts), "stop")
    assert "after batch 2 of epoch 2" in (parts / "stopped0").read_text() == (parts / "stopped1").read_text()
    stopped = Checkpoint.load(parts / "checkpoints" / "last.ckpt")
    assert stopped.unfinished is not None
    assert [state["step"] for state in stopped.unfinished["processes"]] == [2, 2]
    _launch(script, str(sysu_root), str(parts), "resume")
    same_end(whole, parts)
