"""The same samples as a folder, a data set of torch, a loader, a data set of Hugging Face, shards: the same numbers."""

import io
import json
import tarfile

import pytest
import torch
from helpers import squares, tiny_model
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import offramp
from offramp import DataError, UsageError
from offramp.data import Prepared, Stream, as_samples, as_samples_or_stream, loader, open_splits
from offramp.testing._small import images

pytestmark = pytest.mark.slow

N = 48


class Pictures(Dataset):
    """Images of Pillow's and their targets."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples.read(i), int(self.samples.targets[i])


def in_folder(place, samples):
    for i in range(len(samples)):
        folder = place / str(samples.targets[i])
        folder.mkdir(parents=True, exist_ok=True)
        samples.read(i).save(folder / f"{i:03}.png")
    return open_splits(place, validation=8).train, open_splits(place, validation=8)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def huggingface(samples):
    import datasets

    rows = {
        "image": [{"bytes": png(samples.read(i)), "path": None} for i in range(len(samples))],
        "label": samples.targets.tolist(),
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    return datasets.Dataset.from_dict(rows, features=features)


def shards(place, samples, target="cls"):
    place.mkdir()
    for number, first in enumerate(range(0, len(samples), 20)):
        with tarfile.open(place / f"train-{number:03}.tar", "w") as shard:
            for i in range(first, min(first + 20, len(samples))):
                label = str(samples.targets[i])
                said = label if target == "cls" else json.dumps({"label": int(label), "more": "x"})
                for end, content in (("png", png(samples.read(i))), (target, said.encode())):
                    info = tarfile.TarInfo(f"a/{i:03}.{end}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
    return place


def kinds(samples, tmp_path):
    """The samples in every form."""
    model = tiny_model()
    prepared = Prepared(samples, model.input)
    x = torch.stack([prepared[i][0] for i in range(len(samples))])
    data = huggingface(samples)
    data.save_to_disk(str(tmp_path / "saved"))
    saved = open_splits(tmp_path / "saved", validation=8, seed=1)
    return {
        "samples": samples,
        "torch": Pictures(samples),
        "prepared": TensorDataset(x, torch.as_tensor(samples.targets)),
        "loader": DataLoader(Pictures(samples), batch_size=5, shuffle=True),
        "offramp's loader": loader(samples, model.input, 5),
        "huggingface": data,
        "saved by huggingface": saved.train,
        "shards": open_splits(shards(tmp_path / "shards", samples) / "*.tar").parts["train"],
    }, saved


def fit(data, folder, **settings):
    model = tiny_model()
    options = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu", **settings}
    offramp.train(model, data, folder=folder, **options)
    return model


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_every_form_trains_to_the_same_bits_and_gives_the_same_table(tmp_path):
    samples, _ = in_folder(tmp_path / "folder", squares(N))
    forms, saved = kinds(samples, tmp_path)
    assert saved.classes == tuple("abcd")
    wanted = fit(samples, tmp_path / "wanted")
    table = offramp.tabulate(wanted, loader(samples, wanted.input, 8))
    for name in ("torch", "prepared", "loader", "offramp's loader", "huggingface"):
        data = forms[name]
        assert same(fit(data, tmp_path / name), wanted), name
        found = offramp.tabulate(wanted, loader(as_samples(data), wanted.input, 8))
        assert torch.equal(found.outputs, table.outputs), name
        assert torch.equal(found.targets, table.targets), name
    for name in ("saved by huggingface", "shards"):  # which were cut, or keep another order
        rows = as_samples(forms[name])
        again = fit(rows, tmp_path / name)
        assert same(again, fit(rows, tmp_path / f"{name} again"))
        assert {png(rows.read(i)) for i in range(len(rows))} <= {png(samples.read(i)) for i in range(len(samples))}


def test_a_folder_a_data_set_and_shards_lead_to_the_same_policy(tmp_path):
    samples = squares(N)
    folder = open_splits(_folder(tmp_path / "folder", samples), validation=8)
    tarred = open_splits(shards(tmp_path / "shards", _sorted(samples), "json") / "*.tar", validation=8)
    model = fit(samples, tmp_path / "run")
    costs = offramp.profile(model, repeats=0)
    found = []
    for splits in (folder, tarred):
        table = offramp.tabulate(model, loader(splits.train, model.input, 16))
        found.append(offramp.calibrate(table, costs, target_speedup=1.2))
    assert found[0] == found[1]


def _folder(place, samples):
    in_folder(place, samples)
    return place


def _sorted(samples):
    """In the order in which a folder lists them."""
    return samples.take(torch.as_tensor(samples.targets).argsort(stable=True).numpy())


def test_a_data_set_is_evaluated_as_its_samples_are(tmp_path):
    samples = squares(N)
    model = fit(samples, tmp_path)
    table = offramp.tabulate(model, loader(samples, model.input, 16))
    policy = offramp.calibrate(table, offramp.profile(model, repeats=0), target_speedup=1.2)
    found = [offramp.evaluate(model, policy, data, batch=8) for data in (samples, Pictures(samples))]
    for key in ("static", "exits"):
        assert found[0][key] == found[1][key]
    assert found[0]["dynamic"]["value"] == found[1]["dynamic"]["value"]
    with pytest.raises(UsageError, match="a stream"):
        offramp.evaluate(model, policy, weighted(samples))


def test_copycat_takes_a_data_set_without_its_labels(tmp_path):
    from offramp.training.objectives.copycat import Copycat

    unlabelled = TensorDataset(images(32), torch.zeros(32, dtype=torch.long))
    fit(squares(N), tmp_path, objective=Copycat(unlabelled, share=0.5))
    with pytest.raises(UsageError, match=r"a stream .* has no samples that can be read by number"):
        fit(weighted(squares(N)), tmp_path / "b", objective="copycat")


def weighted(samples, batch=16):
    return DataLoader(
        TensorDataset(*map(torch.stack, zip(*_prepared(samples), strict=True))),
        batch_size=batch,
        sampler=WeightedRandomSampler([1.0] * len(samples), len(samples)),
    )


def _prepared(samples):
    prepared = Prepared(samples, tiny_model().input)
    return [(prepared[i][0], torch.tensor(int(samples.targets[i]))) for i in range(len(samples))]


def test_a_stream_is_trained_on_and_not_resumed(tmp_path):
    data = weighted(squares(N))
    assert isinstance(as_samples_or_stream(data), Stream)
    model, before = tiny_model(), tiny_model()
    offramp.train(model, data, folder=tmp_path, epochs=2, precision="fp32", device="cpu", validation=data)
    assert not same(model, before)
    with pytest.raises(UsageError, match="the order of a stream cannot be repeated"):
        offramp.train(model, data, folder=tmp_path, epochs=2, precision="fp32", device="cpu")
    with pytest.raises(UsageError, match="a stream is taken as it comes"):
        offramp.train(model, data, folder=tmp_path / "b", augment={"hflip": 0.5})


class Endless(IterableDataset):
    def __iter__(self):
        yield from _prepared(squares(40))


def test_an_iterable_data_set_says_how_long_it_is(tmp_path):
    with pytest.raises(UsageError, match="does not know how many batches"):
        fit(DataLoader(Endless(), batch_size=8), tmp_path)
    with pytest.raises(UsageError, match="comes in a DataLoader"):
        fit(Endless(), tmp_path)

    class Known(Endless):
        def __len__(self):
            return 40

    fit(DataLoader(Known(), batch_size=8), tmp_path)
    assert len(offramp.tabulate(tiny_model(), DataLoader(Endless(), batch_size=8))) == 40


class Odd(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (Odd([]), DataError, "holds no samples"),
        (Odd([torch.zeros(1, 16, 16)]), UsageError, "sample 0 of the data set is a Tensor"),
        (Odd([(torch.zeros(1, 16, 16), "cat")]), DataError, "they are numbers"),
        (Odd([(torch.zeros(1, 16, 16), [1]), (torch.zeros(1, 16, 16), [1, 2])]), DataError, "not all of one kind"),
        ("digits", UsageError, "'digits' is the name of a source"),
        (7, UsageError, "neither samples, a data set nor a loader"),
    ],
)
def test_what_is_no_data_is_named(data, error, said):
    with pytest.raises(error, match=said) as caught:
        as_samples(data)
    assert "\n" not in str(caught.value)


def test_shards_that_are_none(tmp_path):
    good = shards(tmp_path / "good", squares(4))
    file = next(good.iterdir())
    (tmp_path / "cut-000.tar").write_bytes(file.read_bytes()[:700])
    (tmp_path / "text-000.tar").write_text("no tar")
    for pattern, said in {
        "none-*.tar": "nothing matches",
        "text-000.tar": "could not be read as a shard",
        "cut-000.tar": "could not be read as a shard|has no target|files that are images",
    }.items():
        with pytest.raises(DataError, match=said):
            open_splits(tmp_path / pattern)
    with tarfile.open(tmp_path / "odd-000.tar", "w") as shard:
        for name in ("a.png", "a.cls"):
            info = tarfile.TarInfo(name)
            info.size = 3
            shard.addfile(info, io.BytesIO(b"cat"))
    with pytest.raises(DataError, match=r"the target of a in .* is no number"):
        open_splits(tmp_path / "odd-000.tar")


def test_a_data_set_of_the_hub_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nobody/nothing could not be opened") as caught:
        open_splits("hf/nobody/nothing")
    assert "\n" not in str(caught.value)
    import datasets

    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(DataError, match="no column of images: it has text, label"):
        open_splits(tmp_path / "text")
