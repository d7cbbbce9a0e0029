"""All heads and all ways of training on common ground: one Vision Transformer, one data set, true cost.

``python -m benchmarks.compare --data cifar10.npz`` trains what is not trained yet (finished and half-finished runs are
kept in ``--work``), reads every exit's outputs on validation and test data, and writes ``results/compare.json`` and the
pictures beside it.
"""
