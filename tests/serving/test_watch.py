"""A promise that is watched while it is served: answers are compared with the whole model's; nobody waits for it."""

import json
import logging
import time

import numpy as np
import pytest
import torch
from helpers import model_of

import offramp
from offramp import ArtifactError, UsageError
from offramp._batches import count
from offramp.calibration import Monitor
from offramp.calibration.losses import loss_of
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold
from offramp.serving import Service
from offramp.serving.watch import Watch, open_watch

pytestmark = pytest.mark.slow

N = 60


def policy_for(model, x):
    """Thresholds of which each lets some go."""
    outputs = offramp.tabulate(model, [(x, torch.zeros(count(x)))])
    kind = model.task.scores[0]
    scores = [model.task.score(kind, outputs.of(k), outputs.of(k - 1) if k else None) for k in range(3)]
    own = [float(s.quantile(0.6)) for s in scores]
    if not model.task.classes:
        own[0] = 0.5  # the first exit has nothing to agree with, and scores 0
    return Threshold(tuple(own), kind)


def settled(watch, samples):
    for _ in range(600):
        if watch.monitor.samples + watch.dropped >= samples:
            break
        time.sleep(0.02)
    return watch.monitor


@pytest.mark.parametrize("task", ["classification", "counting", "density", "pair"])
def test_what_is_seen_is_what_the_whole_model_says(task):
    model = model_of(task)
    x = model.input.example(N, torch.Generator().manual_seed(1))
    policy = policy_for(model, x)
    trace = offramp.run(model, x, policy)
    with torch.no_grad():
        full = offramp.run(model, x, Threshold((None,) * 3, policy.score)).output
    kind = "disagreement"
    if not model.task.classes:
        moved = (model.task.answer(trace.output) - model.task.answer(full)).abs()
        kind = f"moved-by-{float(moved[moved > 0].median()):.6f}"
    expected = loss_of(kind, trace.output, full, None, model.task)
    assert 0 < expected.sum() < N
    assert len({*trace.exit.tolist()}) > 1
    with Service(model, policy) as service:
        watch = Watch(service, Monitor(0.5, loss=kind), 1.0)
        for future in service.submit(x):
            future.result()
        found = settled(watch, N)
    assert (found.samples, found.total, watch.dropped) == (N, float(expected.sum()), 0)


def test_what_the_policy_did_not_say_is_not_compared():
    model = model_of("classification")
    x = model.input.example(6)
    with Service(model, Threshold((0.0, 0.0, 0.0))) as service:
        watch = Watch(service, Monitor(0.5), 1.0)
        for more in ({"threshold": 0.5}, {"max_exit": 1}, {"threshold": 1.0, "max_exit": 2}):
            [future.result() for future in service.submit(x, **more)]
        assert settled(watch, 0).samples == 0
        [future.result() for future in service.submit(x)]
        assert settled(watch, 6).samples == 6


def test_a_score_of_one_does_not_let_go_who_goes_to_the_end():
    model = model_of("classification")
    with torch.no_grad():
        for head in model.heads[:3]:
            for parameter in head.parameters():
                parameter.mul_(1e4)
    x = model.input.example(1)
    assert offramp.run(model, x, Threshold((1.0, 1.0, 1.0))).exit.tolist() != [3]
    with Service(model, Threshold((1.0, 1.0, 1.0))) as service:
        assert service.to_the_end(x).result().exit == 3


def test_a_share_is_chosen_by_lot_and_not_by_exit():
    model = model_of("classification")
    x = model.input.example(500, torch.Generator().manual_seed(2))
    policy = policy_for(model, x)
    with Service(model, policy) as service:
        watch = Watch(service, Monitor(0.5), 0.3)
        for start in range(0, 500, 50):
            [future.result() for future in service.submit(x[start : start + 50])]
        for _ in range(100):
            before = watch.monitor.samples
            time.sleep(0.05)
            if service.scheduler.inside == 0 and watch.monitor.samples == before:
                break
    assert watch.monitor.samples == pytest.approx(150, abs=40)
    assert watch.dropped == 0


def test_an_alarm_makes_it_strict_and_is_told_once(tmp_path, caplog):
    model = model_of("classification")
    x = model.input.example(200, torch.Generator().manual_seed(3))
    policy = Threshold((0.0, None, 0.0))
    with Service(model, policy) as service:
        watch = Watch(service, Monitor(0.001), 1.0, stricter=True, state=tmp_path / "watch.json")
        with caplog.at_level(logging.WARNING, "offramp"):
            for start in range(0, 200, 20):
                [future.result() for future in service.submit(x[start : start + 20])]
        assert settled(watch, 200).alarm
        assert service.levels == (Threshold((1.0, None, 1.0)),)
        assert service.submit(x[:1])[0].result().exit == 3
    watch.close()
    assert [record.getMessage() for record in caplog.records if "Alarm at answer" in record.getMessage()] != []
    assert sum("Alarm at answer" in record.getMessage() for record in caplog.records) == 1
    again = Monitor.from_json(json.loads((tmp_path / "watch.json").read_text()))
    assert again.at == watch.monitor.at


def test_without_the_wish_an_alarm_changes_nothing():
    model = model_of("classification")
    policy = Threshold((0.0, 0.0, 0.0))
    with Service(model, policy) as service:
        watch = Watch(service, Monitor(0.001), 1.0)
        [future.result() for future in service.submit(model.input.example(100))]
        assert settled(watch, 100).alarm
        assert service.levels == (policy,)


def test_it_goes_on_from_its_file(tmp_path):
    model, state = model_of("classification"), tmp_path / "watch.json"
    seen = Monitor(0.2).update(np.zeros(50))
    state.write_text(json.dumps(seen.to_json()))
    with Service(model, Threshold((0.0, 0.0, 0.0))) as service:
        watch = open_watch(service, Monitor(0.2), 1.0, state=state)
        [future.result() for future in service.submit(model.input.example(10))]
        assert settled(watch, 60).samples == 60
        with pytest.raises(UsageError, match="watches another promise: its risk is"):
            open_watch(service, Monitor(0.1), 1.0, state=state)
        state.write_text("{}")
        with pytest.raises(ArtifactError, match="this is no monitor"):
            open_watch(service, Monitor(0.2), 1.0, state=state)
    watch.close()
    assert json.loads(state.read_text())["samples"] == 60


def test_where_there_is_no_room_nothing_is_compared_and_nobody_waits():
    model = model_of("classification")
    with Service(model, Threshold((0.0, 0.0, 0.0)), most=1) as service:
        watch = Watch(service, Monitor(0.5), 1.0)
        for row in model.input.example(20):
            assert service.submit(row[None])[0].result(timeout=30).exit == 0
        settled(watch, 20)
        assert (watch.monitor.samples, watch.dropped) == (0, 20)


def test_whoever_listens_and_fails_stops_nobody(caplog):
    model = model_of("classification")
    with Service(model, Threshold((0.0, 0.0, 0.0))) as service:
        service.heard = lambda *_: 1 / 0
        for _ in range(3):
            assert [future.result().exit for future in service.submit(model.input.example(2))] == [0, 0]
    assert "could not be told" in caplog.text


@pytest.mark.parametrize(
    ("policy", "monitor", "share", "said"),
    [
        (Patience(1, (0, 1, 2)), Monitor(0.1), 0.1, "a promise is watched where thresholds decide"),
        (Threshold((0.5,) * 3), Monitor(0.1, loss="gap"), 0.1, "the loss 'gap' asks for it"),
        (Threshold((0.5,) * 3), Monitor(0.1, loss="error"), 0.1, "the loss 'error' asks for it"),
        (Threshold((0.5,) * 3), Monitor(0.1), 0.0, "the share that is watched is 0"),
        (Threshold((0.5,) * 3), Monitor(0.1), float("nan"), "the share that is watched is nan"),
    ],
)
def test_what_cannot_be_watched_is_said(policy, monitor, share, said):
    with Service(model_of("classification"), policy) as service, pytest.raises(UsageError, match=said):
        Watch(service, monitor, share)


def test_the_metrics_show_it_and_the_end_writes_it(tmp_path):
    from fastapi.testclient import TestClient

    from offramp.protocol.http import build_app

    model, state = model_of("classification"), tmp_path / "watch.json"
    service = Service(model, Threshold((0.0, 0.0, 0.0)))
    watch = Watch(service, Monitor(0.5), 1.0, state=state)
    x = model.input.example(5)
    with TestClient(build_app(service, "m", watch=watch)) as client:
        given = {"name": "images", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
        assert client.post("/v2/models/m/infer", json={"inputs": [given]}).status_code == 200
        settled(watch, 5)
        said = client.get("/metrics").text
    assert 'offramp_shadow_samples{model="m"} 5.0' in said
    assert f'offramp_shadow_losses{{model="m"}} {watch.monitor.total}' in said
    assert 'offramp_promise_alarm{model="m"} 0.0' in said
    assert json.loads(state.read_text())["samples"] == 5
