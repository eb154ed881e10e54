"""Features: tables that travel with vectors, models that never mix, files that come back equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.inference.features import Features, Fingerprint, concatenate

MODEL = Fingerprint("ab" * 32, "runs/x")


def make(count: int = 5, seed: int = 0, model: Fingerprint = MODEL, **more: object) -> Features:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(count, 7, generator=generator), dim=1)
    records = [
        Record((f"cam{i % 3}/{i}.jpg",) * (1 + i % 2), i % 2, i % 3, Modality(i % 2), 100 + i % 2) for i in range(count)
    ]
    return Features.of_records(vectors, records, model, **more)  # type: ignore[arg-type]


def test_columns_say_what_records_say() -> None:
    table = make().columns
    assert table["path"].tolist() == [f"cam{i % 3}/{i}.jpg" for i in range(5)]
    assert table["pid"].tolist() == [100, 101, 100, 101, 100]
    assert table["frames"].tolist() == [1, 2, 1, 2, 1]
    assert table["modality"].tolist() == ["visible", "infrared"] * 2 + ["visible"]
    assert make().modalities.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_files_come_back_equal(suffix: str, tmp_path: Path) -> None:
    features = make(time=np.arange(5) * 10)
    path = features.save(tmp_path / f"f{suffix}")
    back = Features.load(path)
    assert torch.equal(back.vectors, features.vectors)
    pd.testing.assert_frame_equal(back.columns, features.columns, check_dtype=False)
    assert back.fingerprint == features.fingerprint
    assert back.fingerprint.name == "runs/x"


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_no_rows_are_a_table_too(suffix: str, tmp_path: Path) -> None:
    empty = make().take(np.zeros(5, dtype=bool))
    assert len(empty) == 0
    assert len(Features.load(empty.save(tmp_path / f"f{suffix}"))) == 0


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_other_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"f{suffix}"
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(GloamError, match=r"could not be read as features|holds no features"):
        Features.load(path)
    with pytest.raises(GloamError, match="no file of features"):
        Features.load(tmp_path / f"absent{suffix}")


def test_unknown_suffixes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=r"\.parquet, \.npz, \.csv"):
        make().save(tmp_path / "f.txt")
    assert list(tmp_path.iterdir()) == []


def test_rows_are_taken_by_mask_position_slice_and_column() -> None:
    features = make()
    assert features.take([4, 0, 0]).columns["path"].tolist() == ["cam1/4.jpg", "cam0/0.jpg", "cam0/0.jpg"]
    assert torch.equal(features.take(torch.tensor([True, False, True, False, False])).vectors, features.vectors[[0, 2]])
    assert len(features[1:3]) == 2
    assert features.where(modality="infrared", cam=0).columns["path"].tolist() == ["cam0/3.jpg"]
    with pytest.raises(GloamError, match="does not fit"):
        features.take([True, False])
    with pytest.raises(GloamError, match="below 5"):
        features.take([5])
    with pytest.raises(GloamError, match="no column 'camera'"):
        features.where(camera=1)


def test_features_of_different_models_never_meet() -> None:
    other = make(model=Fingerprint("cd" * 32, "runs/y"))
    with pytest.raises(GloamError, match=r"runs/x \[abababababab\] and runs/y \[cdcdcdcdcdcd\]"):
        concatenate([make(), other])
    renamed = make(model=Fingerprint(MODEL.digest, "the same model elsewhere"))
    joined = make() + renamed
    assert len(joined) == 10
    assert joined.columns.index.tolist() == list(range(10))


def test_foreign_features_are_checked() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(GloamError, match=r"length 1.*normalise=True"):
        Features.of_arrays(vectors)
    features = Features.of_arrays(vectors, normalise=True, pid=["a", "b", "a", "c"], cam=[1, 2, 3, 1], model="osnet")
    assert [record.pid for record in features.records()] == [0, 1, 0, 2]
    assert features.fingerprint == Fingerprint.foreign("osnet")
    with pytest.raises(GloamError, match="'pid' has 3 entries"):
        Features.of_arrays(vectors, normalise=True, pid=[1, 2, 3])
    with pytest.raises(GloamError, match="modality 'thermal'"):
        Features.of_arrays(vectors, normalise=True, modality="thermal")
    vectors[1] = np.nan
    with pytest.raises(GloamError, match="row 1"):
        Features.of_arrays(vectors, normalise=True)


def test_the_repr_is_short() -> None:
    text = repr(make())
    assert len(text.splitlines()) <= 5
    assert "3 visible, 2 infrared" in text
    assert "2 identities, 3 cameras" in text
