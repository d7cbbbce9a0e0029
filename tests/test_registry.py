"""Names and what stands behind them."""

import pytest
from helpers import tiny_vit

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


def test_a_part_is_registered_by_name(tmp_path):
    import offramp
    from offramp.registry import HEADS

    class Mine(Linear):
        """Mine."""

    assert offramp.register("head", "mine-registered", paper="none")(Mine) is Mine
    try:
        assert HEADS["mine-registered"].about == "Mine."
        assert HEADS.resolve("mine-registered") is Mine
        assert HEADS.name_of(Mine) == "mine-registered"
        model = offramp.attach(tiny_vit(), [offramp.Exit(1, "mine-registered"), offramp.Exit(2, Mine)])
        assert model.head_names == ("mine-registered", "mine-registered", "final")
        offramp.save(model, tmp_path / "m")
        assert offramp.load(tmp_path / "m")[0].head_names == model.head_names
        offramp.register("head", "mine-registered")(Mine)  # a cell that runs twice

        class Other(Linear):
            pass

        with pytest.raises(UsageError, match=r"the head 'mine-registered' is .*Mine: choose another name"):
            offramp.register("head", "mine-registered")(Other)
        with pytest.raises(UsageError, match=r"the head 'lph' is offramp\.heads\.lph:LPH: choose another name"):
            offramp.register("head", "lph")(Other)
    finally:
        HEADS.forget("mine-registered")
    with pytest.raises(offramp.ArtifactError, match=r"of the package .* which is not installed"):
        offramp.load(tmp_path / "m")
    with pytest.raises(UsageError, match="there is no kind of part 'model'"):
        offramp.register("model", "mine")
