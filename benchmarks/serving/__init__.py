"""Servers under load: the static model behind FastAPI with dynamic batching, behind LitServe, and ours.

All compute in PyTorch with the same threads, each in a process of its own on the loopback, and are asked in turn at the
same arrival times for the same images. The load is in multiples of what the static model carries: its samples a second
in batches, measured first. A server that computes nothing says what asking and HTTP take.
"""
