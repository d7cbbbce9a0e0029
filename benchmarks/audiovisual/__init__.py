"""Exits that hear and see (2105.09121): degraded pictures of digits, and the same digits spoken.

``python -m benchmarks.audiovisual --images mnist.npz --clips fsdd.npz`` pairs MNIST pictures, of which a projection on
few principal components leaves a quarter of the variance (as AV-MNIST has them), with clips of the Free Spoken Digit
Dataset. No speaker stands in two splits; each seed has other speakers to be tested on. A small CNN learns to hear, then
a small ViT with exits learns to see and, with that CNN beside it, to do both. Compared are sight, sound, and both at
each exit, and three ways to ask for the sound: always, never, and where sight is unsure.

It writes ``results/audiovisual.json`` and a picture.
"""
