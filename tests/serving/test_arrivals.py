"""Arrivals are as many as was said, as even or uneven as their process is."""

import numpy as np
import pytest

from offramp import DataError, UsageError
from offramp.serving.arrivals import PROCESSES, bursts, fixed, poisson, replay


@pytest.mark.parametrize("name", PROCESSES)
def test_they_rise_at_the_rate_that_was_said_and_follow_the_seed(name):
    make = PROCESSES[name]
    times = make(200.0, 50_000, 3)
    assert len(times) == 50_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert 50_000 / times[-1] == pytest.approx(200, rel=0.02 if name != "bursts" else 0.25)
    assert np.array_equal(times, make(200.0, 50_000, 3))
    assert name == "fixed" or not np.array_equal(times, make(200.0, 50_000, 4))
    for wrong in ((0.0, 5), (float("nan"), 5), (1.0, 0)):
        with pytest.raises(UsageError, match="at a rate above 0"):
            make(*wrong, 0)


def test_how_uneven_they_are():
    """Counts of tenths of a second: variance over mean is 0 for a camera, 1 for Poisson, far above in bursts."""

    def index(times):
        counts = np.bincount((times * 10).astype(int))[1:-1]
        return counts.var() / counts.mean()

    assert index(fixed(200.0, 50_000)) < 0.1
    assert index(poisson(200.0, 50_000)) == pytest.approx(1, abs=0.1)
    assert index(bursts(200.0, 50_000)) > 10


def test_bursts_are_as_long_and_as_high_as_was_said():
    times = bursts(100.0, 400_000, seed=1, peak=4.0, share=0.2, seconds=5.0)
    counts = np.bincount(times.astype(int))[:-1]
    high = counts > 200
    assert high.mean() == pytest.approx(0.2, abs=0.04)
    assert counts[high].mean() == pytest.approx(400, rel=0.1)
    assert np.median(counts[~high]) == pytest.approx(25, rel=0.2)
    for wrong in ({"peak": 11.0}, {"share": 0.0}, {"share": 1.0}, {"seconds": 0.0}, {"peak": 0.5}):
        with pytest.raises(UsageError, match="more than all"):
            bursts(1.0, 5, **wrong)


def test_times_of_a_file(tmp_path):
    file = tmp_path / "times.csv"
    file.write_text("10.5,a\n10.5,b\n12,c\n")
    assert replay(file).tolist() == [0.0, 0.0, 1.5]
    for wrong in ("", "time\n1\n", "2\n1\n", "nan\n"):
        file.write_text(wrong)
        with pytest.raises(DataError, match="arrival times"):
            replay(file)
    with pytest.raises(DataError):
        replay(tmp_path / "none.csv")


def test_over_long_times_bursts_are_as_uneven_as_the_documents_say():
    """Counts of 200 seconds: two states give 1 + 2 · share · (1 − share) · Δ² / (mean · rate of change) as ratio."""
    times = bursts(10.0, 1_000_000, seed=1)
    counts = np.bincount((times // 200).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1 + 3.2 * 10, rel=0.2)
