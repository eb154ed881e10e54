"""Files that are no recipe: one message each, whatever they hold. What is kept out by size would run for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gloam import cli
from gloam.errors import GloamError
from gloam.recipes.reading import parse_yaml, read_recipe
from gloam.recipes.recipe import load_recipe, validate
from tests.training.tiny import tiny_recipe

_TOP = "data: {name: sysu_mm01}\nmethod: {name: base}\n"


def _bomb(kind: str, levels: int = 40) -> str:
    first = {"list": "a0: &a0 [1, 1]\n", "map": "a0: &a0 {x: 1, y: 1}\n", "merge": "a0: &a0 {x: 1}\n"}[kind]
    body = {
        "list": lambda n: f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n",
        "map": lambda n: f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}, z: *a{n - 1}}}\n",
        "merge": lambda n: f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}\n",
    }[kind]
    return first + "".join(map(body, range(1, levels)))


HOSTILE = {
    "bomb of lists": (_bomb("list").encode(), "aliases written out"),
    "bomb of mappings": (_bomb("map").encode(), "aliases written out"),
    "bomb of merges": (_bomb("merge").encode(), "aliases written out"),
    "bomb in a stage": ((_TOP + "stages:\n one:\n  " + _bomb("map").replace("\n", "\n  ")).encode(), "aliases"),
    "cycle of mappings": (b"stages: &s {one: *s}\n", "contains itself"),
    "cycle of lists": (b"a: &a [1, *a]\n", "contains itself"),
    "cycle at the root": (b"&r\nstages: *r\n", "contains itself"),
    "cycle by merge": (b"a: &a {<<: *a}\n", "contains itself"),
    "deep lists": (b"a: " + b"[" * 40_000, "levels deep"),
    "deep mappings": (b"{a: " * 20_000, "levels deep"),
    "deep by indent": ("".join(f"{' ' * n}a:\n" for n in range(300)).encode(), "levels deep"),
    "many values": (b"a: [" + b"1," * 45_000 + b"]", "more than 10,000 values"),
    "large": (b"#" * 200_000, "larger than"),
    "number as key": (b"1: 2\n", "key 1 is int"),
    "number as nested key": (b"train: {3: 4}\n", "key 3 in train is int"),
    "null as key": (b"~: 2\n", "key None is NoneType"),
    "boolean as key": (b"on: 2\n", "key True is bool.*quotation marks"),
    "date as key": (b"2024-01-01: 2\n", "is date"),
    "list as key": (b"? [a, b]\n: 1\n", "not YAML"),
    "key twice": (b"train: {epochs: 1, epochs: 2}\n", "'epochs' stands twice"),
    "date": (b"description: 2024-01-01\n", "description is of type date"),
    "binary value": (b"description: !!binary aGVsbG8=\n", "is of type bytes"),
    "set": (b"train: !!set {a, b}\n", "is of type set"),
    "python object": (b"a: !!python/object/apply:os.system [ls]\n", "not YAML"),
    "endless number": (b"train: {epochs: " + b"9" * 5000 + b"}\n", "cannot be read"),
    "latin-1": ("description: Größe\n".encode("latin-1"), r"not UTF-8 text \(byte 15\)"),
    "utf-16": ("data: x\n".encode("utf-16"), "not UTF-8"),
    "binary": (bytes(range(256)) * 20, "not UTF-8|not YAML"),
    "null bytes": (b"a: \0\n", "not YAML"),
    "control characters": (b"a: \x1b[31m\n", "not YAML"),
    "empty": (b"", "does not hold a recipe"),
    "a list": (b"- data\n", "does not hold a recipe"),
    "two documents": (b"a: 1\n---\nb: 2\n", "not YAML"),
    "unknown alias": (b"a: *b\n", "not YAML"),
    "method is text": (b"data: {name: sysu_mm01}\nmethod: base\n", "method: Input should be a valid dict"),
    "method is null": (b"data: {name: sysu_mm01}\nmethod:\n", "method: Input should be a valid dict"),
    "method without name": (b"data: {name: sysu_mm01}\nmethod: {arch: tiny}\n", "method.name is missing"),
    "method name is a number": (b"data: {name: sysu_mm01}\nmethod: {name: 3}\n", "method.name is no text"),
    "method of a stage is text": ((_TOP + "stages: {a: {method: agw}}\n").encode(), "stage 'a' .*method: Input"),
    "method of a stage is a list": ((_TOP + "stages: {a: {method: [agw]}}\n").encode(), "stage 'a' .*method: Input"),
    "stage is text": ((_TOP + "stages: {a: agw}\n").encode(), r"stages\.a: Input should be a valid dict"),
    "stages is a list": ((_TOP + "stages: [a]\n").encode(), "stages: Input should be a valid dict"),
    "sampler is text": ((_TOP + "sampler: identity\n").encode(), "sampler: Input should be"),
    "sampler name is a list": ((_TOP + "sampler: {name: [identity]}\n").encode(), "no sampler called"),
    "data is a list": (b"data: [sysu_mm01]\nmethod: {name: base}\n", "data: Input should be"),
    "options is a list": (b"data: {name: regdb, options: [1]}\nmethod: {name: base}\n", "data.options: Input"),
    "not a number": ((_TOP + "optimizer: {lr: .nan}\n").encode(), r"optimizer\.lr: Input should be a finite number"),
    "infinite": ((_TOP + "optimizer: {lr: .inf}\n").encode(), r"optimizer\.lr"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_one_message(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = HOSTILE[what]
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(GloamError, match=message):
        load_recipe(path)
    assert cli.main(["train", str(path)]) == 2
    assert len(capsys.readouterr().err) < 3000


def test_aliases_that_help_a_reader_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"{_TOP}stages:\n  a: {{optimizer: &slow {{lr: 0.01, momentum: 0.5}}}}\n"
        "  b: {optimizer: {<<: *slow, lr: 0.02}}\n  c: {optimizer: *slow}\n"
    )
    stages = load_recipe(tmp_path / "mine.yaml").resolved_stages()
    assert [(s.optimizer.lr, s.optimizer.momentum) for s in stages.values()] == [(0.01, 0.5), (0.02, 0.5), (0.01, 0.5)]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(GloamError, match=r"holds no recipe\.yaml"):
        load_recipe(tmp_path / "folder.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(GloamError):
        load_recipe(tmp_path / "loop.yaml")
    assert read_recipe("sysu_mm01/agw")["data"]["name"] == "sysu_mm01"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(_TOP, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "mine.yaml").data.name == "sysu_mm01"


def test_values_on_the_command_line_are_read_as_in_a_file() -> None:
    assert parse_yaml("[1, two, null]", "--flag") == [1, "two", None]
    with pytest.raises(GloamError, match="--flag is not YAML"):
        parse_yaml("[1", "--flag")


def test_what_an_earlier_gloam_saved_loads_without_what_never_acted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    content["sampler"] = {
        "name": "norm_triplet", "identities": 3, "instances": 2, "batch_size": None, "draw": "with_replacement",
        "independent_modalities": False, "epoch_multiplier": 1, "extra_batch": True, "incomplete_ids": "fail",
        "infrared_share": 0.5, "use_cameras": True, "partners": False, "iterations": 7,
    }  # fmt: skip
    content["optimizer"] |= {"name": "adam", "momentum": 0.5, "nesterov": False}
    content["schedule"] |= {"milestones": [3], "warmup_epochs": 0, "warmup_start": 0.5}
    content["augment"]["infrared"]["grey_probability"] = 0.25
    content["data"]["test_clip"] = "spaced"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    recipe = load_recipe(tmp_path)
    assert recipe.sampler.model_dump() == {
        "name": "identity", "identities": 3, "instances": 2, "partners": False, "iterations": None
    }  # fmt: skip
    assert recipe.optimizer.name == "adam"
    assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, True)
    assert recipe.schedule.milestones == ()
    assert recipe.schedule.warmup_start is None
    assert recipe.augment.infrared.grey_probability is None
    assert recipe.data.test_clip == "evenly"
    for option in ("optimizer.momentum", "schedule.milestones", "augment.infrared.grey_probability", "data.test_clip"):
        assert f"{option}: " in caplog.text
    # Written today, the same would be refused.
    with pytest.raises(GloamError, match="momentum does nothing"):
        validate({**content, "sampler": {"name": "identity"}}, "mine")
