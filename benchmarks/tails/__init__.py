"""Paths, exits, routers and cascades on one set of weights: which saves most, in multiply-adds and in time?

``python -m benchmarks.tails imagenette --data imagenette.npz --checkpoint vit_tiny.safetensors`` trains what is not
trained yet (finished and half-finished runs are kept in ``--work``), reads every exit's outputs on validation and test
data, times the chosen policies, and writes ``results/tails-imagenette.json`` and the pictures beside it.
"""
