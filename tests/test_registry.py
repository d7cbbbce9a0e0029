"""Names and what stands behind them."""

import pytest

from offramp.errors import UsageError
from offramp.heads.linear import Linear
from offramp.registry import HEADS, TABLES


@pytest.mark.parametrize(("table", "name"), [(t, n) for t, table in TABLES.items() for n in table])
def test_every_entry_loads_and_finds_its_name(table, name):
    target = TABLES[table].resolve(name)
    assert table == "models" or TABLES[table].name_of(target) == name
    assert TABLES[table][name].about


def test_an_unknown_name_gets_the_nearest_and_the_list():
    with pytest.raises(UsageError, match=r"no head 'liner'; did you mean 'linear'\? Known: cnn-add, "):
        HEADS.resolve("liner")


def test_an_object_is_taken_as_it_is():
    assert HEADS.resolve(Linear) is Linear
