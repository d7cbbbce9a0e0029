"""Exits that count heads: a map at every exit, on frames of another camera or another day.

``python -m benchmarks.counting --data crowd_beijing_brt.npz`` trains a CSRNet-shaped ResNet (a map at an eighth of the
frame, dilated from there on) with the exits ``density``, on the frames of one camera and tests it on the other's, both
ways, and on all days but one. Policies for numbers are calibrated on whole days of the training frames, and read on
test frames once. Beside them stands what one has who always says the mean number.

It writes ``results/counting.json`` and a picture.
"""
