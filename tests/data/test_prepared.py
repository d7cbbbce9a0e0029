"""From samples to tensors."""

import pickle
import random
from dataclasses import replace

import numpy as np
import torch
from helpers import squares, tiny_model
from PIL import Image

from offramp.data import Prepared, loader, open_splits
from offramp.data.stream import TrainingStream

AUGMENT = {"scale": (0.3, 1.0), "hflip": 0.5, "color_jitter": 0.4}


def test_timm_decides_size_and_normalisation():
    reads = replace(tiny_model().input, mean=(0.25,), std=(0.5,))
    x = reads.transform()(Image.fromarray(np.full((40, 40, 3), 255, np.uint8)))
    assert x.shape == (1, 16, 16)
    assert torch.allclose(x, torch.full_like(x, 1.5))


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    reads = tiny_model().input
    dataset = Prepared(squares(8), reads, AUGMENT)
    first = dataset[0, 3][0]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    dataset[0, 1]
    assert torch.equal(dataset[0, 3][0], first)
    assert not torch.equal(dataset[1, 3][0], first)
    assert not torch.equal(Prepared(squares(8), reads, AUGMENT, seed=1)[0, 3][0], first)


def test_augmentation_leaves_the_random_state_of_others_alone():
    dataset = Prepared(squares(8), tiny_model().input, AUGMENT)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    dataset[0, 3]
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_stream_starts_anywhere_and_goes_on_as_it_would_have():
    whole = list(TrainingStream(23, 5, epochs=3, seed=0))
    assert len(whole) == len(TrainingStream(23, 5, epochs=3, seed=0)) == 3 * 20
    for start in (0, 1, 4, 7, 11):
        rest = TrainingStream(23, 5, epochs=3, seed=0, start=start)
        assert list(rest) == whole[5 * start :]
        assert len(rest) == len(whole) - 5 * start
    for epoch in range(3):
        seen = [i for e, i in whole if e == epoch]
        assert len(set(seen)) == 20
    assert whole[:20] != [(0, i) for _, i in whole[20:40]]


def test_loader_keeps_the_order():
    samples = squares(10)
    targets = torch.cat([y for _, y in loader(samples, tiny_model().input, 4)])
    assert targets.tolist() == samples.targets.tolist()


def test_samples_of_every_source_can_be_sent_to_another_process(tmp_path):
    for samples in (open_splits("digits").test, squares(8).take(np.array([3, 1]))):
        again = pickle.loads(pickle.dumps(samples))
        assert np.array_equal(np.asarray(again.read(1)), np.asarray(samples.read(1)))
