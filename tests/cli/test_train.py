"""Flags of recipes: stages, data sets, samplers, and flags that would change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam import cli
from gloam.cli.recipe_flags import parse_overrides
from gloam.errors import GloamError
from gloam.recipes.recipe import differing_keys, load_recipe, resolve, validate
from tests.training.tiny import tiny_recipe

STAGES = {"pre-train": {"train": {"epochs": 5}}, "finetune": {"method": {"name": "agw"}}}


def test_stage_flags_take_lists_and_any_stage_name(tmp_path: Path) -> None:
    words = "--stages.pre-train.schedule.milestones 2 4 --stages.finetune.schedule.milestones=3"
    words += " --stages.finetune.method.wrt exact --stages.finetune.train.clip-norm 5.0 --optimizer.lr 0.5"
    base = tiny_recipe(tmp_path, stages=STAGES, schedule={"name": "multistep"})
    recipe, _ = parse_overrides(base, words.split())
    stages = recipe.resolved_stages()
    assert stages["pre-train"].schedule.milestones == (2, 4)
    assert stages["pre-train"].train.epochs == 5
    assert stages["finetune"].schedule.milestones == (3,)
    assert stages["finetune"].method == {"name": "agw", "arch": "tiny", "wrt": "exact"}
    assert stages["finetune"].train.clip_norm == 5.0
    assert stages["finetune"].optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stages.finetun.train.epochs 3", "finetune"),
        ("--stages.finetune.train.epochs", "needs a section"),
        ("--stages.finetune 3", "needs a section"),
    ],
)
def test_bad_stage_flags_are_named(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        parse_overrides(tiny_recipe(tmp_path, stages=STAGES), words.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimzer": {"lr": 1}}, "stage 'only'.*optimizer"),
        ({"optimizer": {"lrr": 1}}, r"optimizer\.lrr.*'lr'"),
        ({"data": {"height": 64}}, "cannot have its own 'data'"),
        ({"augment": {"visible": {"chanels": "grey"}}}, "'channels'"),
    ],
)
def test_mistakes_in_a_stage_are_found_when_the_file_is_read(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    content = tiny_recipe(tmp_path).model_dump(mode="json") | {"stages": {"only": changes}}
    import yaml

    path.write_text(yaml.safe_dump(content))
    with pytest.raises(GloamError, match=message):
        load_recipe(path)


def test_misspelt_nested_keys_offer_the_nearest(tmp_path: Path) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    content["augment"]["visible"] = {"chanels": "exchange"}
    with pytest.raises(GloamError, match=r"augment\.visible\.chanels.*'channels'"):
        validate(content, "mine")


def test_differing_keys_are_dotted(tmp_path: Path) -> None:
    left = tiny_recipe(tmp_path)
    right = tiny_recipe(tmp_path, optimizer={"lr": 0.1}, method={"name": "base", "arch": "tiny", "margin": 0.5})
    assert differing_keys(left, left) == []
    assert differing_keys(left, right) == ["method.margin", "optimizer.lr"]


# --- options of the data set are flags


def test_every_option_of_the_dataset_is_a_typed_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("regdb/agw")
    changed, _ = parse_overrides(recipe, ["--data.options.trial", "7"])
    assert changed.data.options == {"trial": 7}
    assert parse_overrides(recipe, [])[0] == recipe
    for words in (["--data.options.trial", "11"], ["--data.options.trial", "one"], ["--data.options.train", "train"]):
        with pytest.raises(SystemExit) as stop:
            parse_overrides(recipe, words)
        assert stop.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit):
        parse_overrides(load_recipe("msmt17/spcl"), ["--help"])
    shown = capsys.readouterr().out
    assert "--data.options.train {train,train_val}" in shown
    assert "list_train and list_val" in shown


def test_own_data_by_flags_alone() -> None:
    words = ["--data.name", "table", "--data.root", "people", "--data.options.pattern", "{pid}/{cam}_{modality}_*.jpg"]
    words += ["--data.options.test-fraction", "0.25", "--data.options.modality=infrared"]
    recipe, _ = parse_overrides(load_recipe("regdb/agw"), words)
    assert recipe.data.name == "table"
    # RegDB's trial is no option of a table.
    assert recipe.data.options == {
        "pattern": "{pid}/{cam}_{modality}_*.jpg", "test_fraction": 0.25, "modality": "infrared"
    }  # fmt: skip
    with pytest.raises(GloamError, match=r"no dataset called 'tabel'.*'table'"):
        parse_overrides(load_recipe("regdb/agw"), ["--data.name", "tabel"])


def test_an_unknown_option_of_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=r"regdb has no option 'trail'.*'trial'"):
        resolve(tiny_recipe(tmp_path, data={"name": "regdb", "options": {"trail": 1}}))
    with pytest.raises(GloamError, match=r"trial=99.* from 1 to 10"):
        resolve(tiny_recipe(tmp_path, data={"name": "regdb", "options": {"trial": 99}}))


# --- samplers


def test_another_sampler_by_name_has_its_own_flags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = tiny_recipe(tmp_path)
    words = ["--sampler.name", "camera_identity", "--sampler.no-use-cameras"]
    changed, _ = parse_overrides(recipe, words)
    assert changed.sampler.model_dump() == {
        "name": "camera_identity", "identities": 3, "instances": 2, "use_cameras": False, "partners": False,
        "iterations": None,
    }  # fmt: skip
    assert parse_overrides(recipe, ["--sampler.name=norm_triplet"])[0].sampler.name == "identity"
    assert "now called 'identity'" in caplog.text
    with pytest.raises(GloamError, match=r"--sampler\.use-cameras is no option of .* but of camera_identity"):
        parse_overrides(recipe, ["--sampler.use-cameras", "False"])
    with pytest.raises(GloamError, match="no sampler called 'identty'"):
        parse_overrides(recipe, ["--sampler.name", "identty"])


# --- flags that would change nothing


def test_a_flag_that_no_stage_reads_is_refused_with_those_that_act(tmp_path: Path) -> None:
    recipe = load_recipe("sysu_mm01/wsl_vireid")
    with pytest.raises(
        GloamError, match=r"--stages\.experts\.train\.epochs 2 or --stages\.collaboration\.train\.epochs 2"
    ):
        parse_overrides(recipe, ["--train.epochs", "2"])
    # One stage has its own, the other takes the top level's.
    mixed = load_recipe("sysu_mm01/mmgl_agw")
    changed, _ = parse_overrides(mixed, ["--train.epochs", "2"])
    assert [stage.train.epochs for stage in changed.resolved_stages().values()] == [2, 81]
    # Where every stage has another method, the top level's flags reach none, but its network does.
    other = tiny_recipe(tmp_path, method={"margin": 0.4}, stages={"a": {"method": {"name": "agw"}}})
    with pytest.raises(GloamError, match=r"--stages\.a\.method\.margin 0\.5"):
        parse_overrides(other, ["--method.margin", "0.5"])
    assert parse_overrides(other, ["--method.arch", "small"])[0].resolved_stages()["a"].method["arch"] == "small"
    # Seeds and devices are of the whole run.
    seeds = tiny_recipe(tmp_path, stages={"a": {"train": {"seed": 1}}})
    assert parse_overrides(seeds, ["--train.seed", "5"])[0].train.seed == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optimizer.name adam --optimizer.momentum 0.5", r"momentum does nothing while name is adam"),
        ("--schedule.milestones 3", r"milestones does nothing while name is cosine"),
        (
            "--schedule.warmup-epochs 0 --schedule.warmup-start 0.1",
            r"warmup_start does nothing while warmup_epochs is 0",
        ),
        ("--sampler.iterations 5", r"sampler\.iterations does nothing while train\.iterations is given"),
        ("--data.test-clip spaced", r"test_clip does nothing while frames is None"),
        ("--augment.grey-probability 0.2", r"grey_probability does nothing without channels: adaptive_grey"),
        ("--augment.second-visible.erase 0.2", r"second_visible does nothing while visible_views is 1"),
        ("--augment.erase 0 --augment.infrared.erase-tries 5", r"infrared\.erase_tries does nothing while erase is 0"),
        ("--augment.style-range 0.1 2", r"style_range does nothing without style"),
    ],
)
def test_options_that_only_act_together_are_refused_apart(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        parse_overrides(tiny_recipe(tmp_path), words.split())


def test_switching_by_name_leaves_the_old_options_behind(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, optimizer={"momentum": 0.5}, schedule={"minimum": 0.1, "length": 3})
    changed, _ = parse_overrides(recipe, ["--optimizer.name", "adam", "--schedule.name", "step"])
    assert changed.optimizer.momentum == 0.9
    assert changed.schedule.length is None


# --- recipes and runs that are not there


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nothere.yaml", "There is no file nothere.yaml."),
        ("./folder/mine", "There is no file ./folder/mine."),
        ("sysu_mm01/awg", "Did you mean 'sysu_mm01/agw'"),
        ("qqqq", "There is no recipe 'qqqq'. gloam recipes lists them."),
        ("--resume nothing", "There is no run nothing"),
        ("--resume .", "holds no recipe.yaml, so it is no run"),
    ],
)
def test_what_is_missing_is_named(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *words.split()]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown
    assert len(shown) < 300
    assert not list(tmp_path.iterdir())


def test_a_name_of_no_length_that_a_file_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a" * 300 + "/" + "b" * 300, "x" * 5000, "a\x00b", "a\nb", "/" + "d/" * 400):
        assert cli.main(["train", name]) == 2
        assert len(capsys.readouterr().err) < 1500


def test_stage_flags_that_go_through_a_value(tmp_path: Path) -> None:
    for words in ("--stages.pre-train.train.epochs.more 3", "--stages.finetune.method.name.x 1"):
        with pytest.raises(GloamError, match="is a value, not a section"):
            parse_overrides(tiny_recipe(tmp_path, stages=STAGES), words.split())


# --- refused runs


@pytest.mark.parametrize(
    "words",
    [
        "--data.height 60000 --data.width 60000 --sampler.identities 100 --sampler.instances 100",
        "--evaluation.feature nothing",
        "--weights nothing.pth",
        "--sampler.identities 99",
        "--method.arch timm:nothing",
        "--evaluation.protocols nothing",
        "--optimizer.lr inf",
        "--augment.pad 99999999999999999999",
        "--schedule.milestones -1",
        "--data.workers -3",
        "--train.iterations 99999999999999999999",
        "--sampler.epoch-multiplier 1000000000",
    ],
)
def test_a_refused_run_leaves_no_folder(
    words: str, sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_recipe(sysu_root).save(tmp_path / "tiny.yaml")
    code: object = None
    try:
        code = cli.main(["train", "tiny.yaml", "--quiet", *words.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_images_that_do_not_fit_into_memory_say_so(sysu_root: Path) -> None:
    from gloam.training.training_data import prepare_data

    large = tiny_recipe(
        sysu_root, data={"height": 60_000, "width": 60_000}, sampler={"identities": 50, "instances": 50}
    )
    with pytest.raises(GloamError, match=r"2,500 images of 60000 x 60000 needs 226,311 GiB.* Lower data\.height"):
        prepare_data(resolve(large), progress=False)
    many = tiny_recipe(sysu_root, evaluation={"batch_size": 1_000_000})
    prepare_data(resolve(many), progress=False)  # never more rows than there are images
