"""Paths x links x routers x policies: what one path keeps, several keep."""

import math

import pytest
import torch
from helpers import images, path_model
from policy_examples import NO_MIDDLE, examples

import offramp
from offramp import Routed, UsageError
from offramp.engine import RuntimeInPieces, open_runtime
from offramp.policies import policy_from_json, policy_to_json
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.registry import LINKS, POLICIES, ROUTERS
from offramp.testing import check_policy
from offramp.testing._policies import SAMPLES

pytestmark = pytest.mark.slow


def forced(rows):
    """Every exit, from every entry that leads there."""
    entries = [(0, 0), (1, 1), (2, 1), (3, 0), (3, 1), (1, 0)]
    exits, entered = zip(*(entries[i % 6] for i in rows.tolist()), strict=True) if len(rows) else ((), ())
    return Forced(exits, 3, entries=entered)


def table_of(model, x):
    return offramp.tabulate(model, [(part, torch.zeros(len(part))) for part in x.split(256)])


@pytest.fixture(scope="module", params=[(link, router) for link in LINKS for router in (None, *ROUTERS)], ids=str)
def setting(request):
    model, x = path_model(*request.param), images(SAMPLES)
    return model, x, table_of(model, x)


@pytest.mark.parametrize("name", POLICIES)
def test_policy(setting, name):
    model, x, table = setting
    if not examples(model, x)[name]:  # it is for numbers
        return None
    make = examples(model, x)[name][0]
    if name == "forced":
        return check_policy(forced, model, table)
    check_policy(make, model, table)
    if model.router is None or name in NO_MIDDLE:
        return None
    bias = model.middle

    def routed(rows):
        return Routed(make(rows), bias)

    check_policy(routed, model, table)
    entered = offramp.replay(routed(torch.arange(SAMPLES)), table).entry
    assert type(model.router).__name__ == "Fixed" or 0.1 < entered.float().mean() < 0.9
    return None


def test_a_deadline_that_is_never_reached_is_none(setting):
    model, x, _ = setting
    x = x[:40]
    costs = offramp.profile(model, repeats=3)
    policies = [Threshold(examples(model, x)["threshold"][0](torch.arange(40)).thresholds)]
    if model.router is not None:
        policies.append(Routed(policies[0], model.middle))
    for policy in policies:
        expected = offramp.run(model, x, policy)
        found = offramp.run_until(model, x, math.inf, costs, policy)
        for part in ("output", "exit", "score", "path", "entry"):
            assert torch.equal(getattr(found, part), getattr(expected, part)), part
        for kind in ("last", "cache", "product", "geometric"):  # nobody has time: everybody answers
            late = offramp.run_until(model, x, 0.0, costs, policy, answer=kind)
            assert torch.isfinite(late.output).all()
            assert (late.exit <= expected.exit).all()


@pytest.mark.parametrize("piece", [1, 7, "auto"])
def test_in_pieces_as_in_one(setting, piece):
    model, x, _ = setting
    x = x[:40]
    policies = [Threshold(examples(model, x)["threshold"][0](torch.arange(40)).thresholds), forced(torch.arange(40))]
    if model.router is not None:
        policies.append(Routed(policies[0], model.middle))
    computes = RuntimeInPieces(open_runtime("torch"), piece)
    for policy in policies:
        expected, found = offramp.run(model, x, policy), offramp.run(model, x, policy, computes)
        for part in ("exit", "path", "entry"):
            assert torch.equal(getattr(found, part), getattr(expected, part)), part
        assert torch.allclose(found.output, expected.output, atol=1e-4)


def test_anytime_goes_along_the_chain(setting):
    model, x, table = setting
    answers = list(offramp.anytime(model, x[:8]))
    assert [a.path[0].item() for a in answers] == list(model.chain.paths)
    for k, answer in enumerate(answers):
        assert torch.allclose(answer.output, table.of(k)[:8], atol=1e-4)


@pytest.mark.parametrize("link", LINKS)
def test_always_the_same_path_is_a_path_that_is_fixed(link):
    """The router that always says p, the bias that picks p, and entries that are p, are one."""
    x = images(30)
    for router in ROUTERS:
        model = path_model(link, router)
        rule = Threshold((0.35, 0.4, 0.4))
        for path in (0, 1):
            bias = tuple(100.0 * (p == path) for p in range(2))
            found = offramp.run(model, x, Routed(rule, bias))
            assert (found.entry == path).all()
            last = offramp.run(model, x, Forced((3,) * 30, 3, entries=(path,) * 30))
            with torch.inference_mode():
                assert torch.allclose(last.output, model(x, entry=path)[-1], atol=1e-5)
        never = Routed(Threshold((None,) * 3), (0.0, 100.0))
        with torch.inference_mode():
            whole = model.backbone.model(x)
        assert torch.equal(offramp.run(model, x, never).output, whole), "the last path alone, bit for bit"


def test_without_links_all_thresholds_off_is_the_last_path_and_costs_it():
    model, x = path_model(), images(12)
    off = Threshold((None,) * 3)
    calls = []
    for path in model.cheaper:
        path.embed.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        assert torch.equal(offramp.run(model, x, off).output, model.backbone.model(x))
    assert not calls, "nothing of the cheap path is computed"
    costs = offramp.profile(model, repeats=0)
    assert costs.to_exit(off.heads)[-1] == costs.macs.static


def test_what_lies_behind_a_paths_last_used_exit_is_not_computed():
    model, x = path_model(), images(12)
    sizes = []
    for block in model.backbone.steps:
        block.register_forward_hook(lambda _, args, __: sizes.append(args[0].shape[1]))
    offramp.run(model, x, Threshold((1.0, None, None)))
    assert sizes == [5, 5, 17, 17, 17, 17], "two blocks of the cheap path, four of the dear one"
    costs = offramp.profile(model, repeats=0)
    cheap, dear = costs.macs.paths
    spent = cheap.stem + sum(cheap.steps[:2]) + cheap.heads[0] + dear.static
    assert costs.to_exit((0,))[-1] == pytest.approx(spent)


def test_a_router_that_says_nothing_costs_nothing_and_one_that_speaks_is_counted():
    model = path_model(router="exit")
    costs = offramp.profile(model, repeats=0)
    cheap, dear = costs.macs.paths
    assert costs.macs.ahead == cheap.stem + cheap.steps[0]
    policy = Routed(Threshold((None, 0.0, None)), (0.0, 0.0))
    chain = costs.in_chain()
    assert chain.to_exit(policy.heads, 0, True)[1] == pytest.approx(costs.macs.router + cheap.static)
    assert chain.to_exit(policy.heads, 1, True)[3] == pytest.approx(costs.macs.router + costs.macs.ahead + dear.static)
    assert chain.to_exit(policy.heads, 1)[3] == pytest.approx(dear.static)


def test_a_policy_with_a_bias_is_json_and_one_for_other_paths_is_refused():
    policy = Routed(Threshold((0.5, None, 0.25)), (0.0, -1.5))
    assert policy_from_json(policy_to_json(policy)) == policy
    model = path_model(router="cnn")
    with pytest.raises(UsageError, match="a bias for 3 paths"):
        offramp.run(model, images(2), Routed(policy.inner, (0.0, 1.0, 2.0)))
    with pytest.raises(UsageError, match="finite number"):
        Routed(policy.inner, (0.0, math.nan))


@pytest.mark.slowest
@pytest.mark.parametrize("router", [None, *ROUTERS])
@pytest.mark.parametrize("link", LINKS)
def test_a_file_answers_as_the_model_does(link, router, tmp_path):
    model, x = path_model(link, router), images(200)
    names = ["threshold", "patience" if link == "none" else None, "forced" if link == "none" else None]
    names += NO_MIDDLE if (link, router) == ("none", None) else []
    for name in filter(None, names):
        make = forced if name == "forced" else examples(model, x)[name][0]
        wrap = (lambda policy: Routed(policy, model.middle)) if router and name != "forced" else (lambda policy: policy)
        file = tmp_path / f"{name}.onnx"
        offramp.export_onnx(model, file, wrap(make(torch.arange(200))))
        for runtime in ("onnxruntime", "openvino"):
            session = open_runtime(runtime).open(file)
            for rows in (torch.arange(200), torch.arange(3, 6), torch.arange(1), torch.arange(0)):
                compare(session, model, x[rows], wrap(make(rows)))
            if name == "threshold":  # the same file, with other numbers
                for thresholds in ((None, 0.4, None), (0.4, None, None), (None, None, None)):
                    compare(session, model, x, wrap(Threshold(thresholds)))
            if name == "threshold" and router:  # the bias is an input: all to one path
                for path in (0, 1):
                    bias = tuple(100.0 * (p == path) for p in range(2))
                    compare(session, model, x, Routed(make(torch.arange(200)), bias))


@pytest.mark.slowest
@pytest.mark.parametrize("router", [None, *ROUTERS])
@pytest.mark.parametrize("link", LINKS)
def test_a_file_with_some_exits_answers_as_the_model_does(link, router, tmp_path):
    model, x = path_model(link, router), images(200)
    for heads in ((0,), (1,), (0, 2), (1, 2), (2,)):
        inner = Threshold(tuple(0.4 if k in heads else None for k in range(3)))
        policy = Routed(inner, model.middle) if router else inner
        file = tmp_path / "m.onnx"
        if link != "none" and 0 not in {model.chain.paths[k] for k in heads}:
            with pytest.raises(UsageError, match="asks no exit on path 0"):
                offramp.export_onnx(model, file, policy, fixed=True)
            continue
        offramp.export_onnx(model, file, policy, fixed=True)
        for runtime in ("onnxruntime", "openvino"):
            session = open_runtime(runtime).open(file)
            for rows in (torch.arange(200), torch.arange(1), torch.arange(0)):
                compare(session, model, x[rows], policy)


def compare(session, model, x, policy):
    expected, found = offramp.run(model, x, policy), session(x, policy)
    same = found.exit == expected.exit
    assert len(x) == 0 or same.float().mean() > 0.98, policy
    for part in ("path", "entry", "output", "score"):
        a, b = getattr(found, part)[same], getattr(expected, part)[same]
        assert torch.allclose(a.float(), b.float(), atol=1e-3), (part, policy)
