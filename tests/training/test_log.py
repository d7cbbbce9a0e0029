"""The log of a run."""

from offramp.training.log import Log, read_log


def test_lines_after_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path, 0)
    for step in (1, 2, 3):
        log.write(step=step, loss=1.0)
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    Log(path, 2)
    assert [line["step"] for line in read_log(path)] == [1, 2]
