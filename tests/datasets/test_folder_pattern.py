import pytest

from gloam.datasets.folder_pattern import compile_pattern
from gloam.errors import GloamError


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{pid}/{cam}_{modality}_*.jpg", "anna/3_ir_0001.jpg", {"pid": "anna", "cam": "3", "modality": "ir"}),
        ("{pid}/{cam}_{modality}_*.jpg", "anna/3_ir_0001.PNG", {"pid": "anna", "cam": "3", "modality": "ir"}),
        ("{pid}/{cam}_{modality}_*.jpg", "x/anna/3_ir_0001.jpg", None),
        ("**/{pid}/*", "x/y/anna/1.jpg", {"pid": "anna"}),
        ("**/{pid}/*", "anna/1.jpg", {"pid": "anna"}),
        ("{pid}_c{cam}*.jpg", "0002_c12s1_03.jpg", {"pid": "0002", "cam": "12"}),
        ("{pid}_c{cam}s*.jpg", "-1_c1s1_03.jpg", {"pid": "-1", "cam": "1"}),
        ("{split}/{pid}/{pid}_{tracklet}_*", "train/7/7_t1_1.bmp", {"split": "train", "pid": "7", "tracklet": "t1"}),
        ("{split}/{pid}/{pid}_{tracklet}_*", "train/7/8_t1_1.bmp", None),
        ("p?{pid}.jpg", "px9.jpg", {"pid": "9"}),
        ("a.b/{pid}.jpg", "aXb/9.jpg", None),
    ],
)
def test_match(pattern, path, fields):
    assert compile_pattern(pattern)(path) == fields


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{pid}/{camera}_*.jpg", r"unknown field \{camera\}\. Did you mean 'cam'"),
        ("{cam}/*.jpg", r"does not say where the person is: add \{pid\}"),
        ("{pid}/{*.jpg", "a lone brace"),
        ("{pid}/{}.jpg", "unknown field {}"),
    ],
)
def test_bad_patterns(pattern, message):
    with pytest.raises(GloamError, match=message):
        compile_pattern(pattern)
