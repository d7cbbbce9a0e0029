"""What benchmarks that train have in common."""

from types import SimpleNamespace

from benchmarks._runs import parser_of, train_all


def test_runs_of_a_pattern_are_trained_in_order():
    plan = [SimpleNamespace(name=name) for name in ("a-0", "b-0", "a-1")]
    trained = []
    assert not train_all(plan, "a-*", lambda run: trained.append(run.name))
    assert trained == ["a-0", "a-1"]
    assert train_all(plan, "*", lambda run: None)


def test_all_runs_are_trained_where_nothing_else_is_said():
    parser = parser_of("does it", ["here"], "runs/x")
    args = parser.parse_args(["here", "--data", "d.npz", "--checkpoint", "w.safetensors"])
    assert (args.only, args.device, args.seeds, str(args.work)) == ("*", "cpu", 3, "runs/x")
