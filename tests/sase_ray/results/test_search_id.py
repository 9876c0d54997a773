"""The name of a search is a value with one text form."""

from __future__ import annotations

import pytest

from sase_ray.results.search_id import SearchId, split_label
from sase_ray.strategies.catalogue import make_strategy


@pytest.mark.parametrize(
    ("search", "label", "text", "file_name"),
    [
        (SearchId("tpe-asha", 3), "tpe-asha", "tpe-asha/seed3", "tpe-asha-seed3"),
        (SearchId("tpe", 0, "rsws"), "tpe+rsws", "tpe+rsws/seed0", "tpe+rsws-seed0"),
    ],
)
def test_its_text_forms_and_the_way_back(search, label, text, file_name):
    assert (search.label, str(search), search.file_name) == (label, text, file_name)
    assert SearchId.of(label, search.seed) == search
    assert make_strategy(label).search_id(search.seed) == search
    assert make_strategy(label).label == label


def test_an_empty_warm_start_is_not_none():
    assert split_label("tpe") == ("tpe", None)
    assert split_label("tpe+") == ("tpe", "")
