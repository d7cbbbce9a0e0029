"""Exits for sound (2105.09121): spoken words and digits, by speakers that nobody heard before.

``python -m benchmarks.audio speech_commands --data speech_commands12.npz`` trains a small ResNet on log-mel images, and
on it, frozen, each kind of exit at each place: with all labels, with those of a quarter of the speakers, and with these
after *copycat*, on what the other speakers said, labelled by the network. Then the network learns on with SL-ViT exits
as a whole, is calibrated and timed. ``python -m benchmarks.audio fsdd --data fsdd.npz`` does so for every speaker in
turn, one tested on, the next calibrating, four to train on, from the networks that learned Speech Commands.
``speech_commands_vit`` is the first comparison with a ViT in place of the ResNet, from the weights of ``--checkpoint``.

It writes ``results/audio-FIELD.json`` and a picture.
"""
