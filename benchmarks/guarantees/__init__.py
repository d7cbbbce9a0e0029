"""Do promises about risk hold, and does a monitor notice when they no longer do? Simulations where the truth is known.

``python -m benchmarks.guarantees`` writes ``results/guarantees.json`` and ``guarantees.png``.

**Promises.** A thousand times and more, an exit table is drawn from a source of ten classes (``world.py``), shuffled or
class by class; ``calibration.control`` chooses a threshold for a risk of ε, and its true risk is looked up. A violation
is one above ε. UCB and Learn-then-Test promise that violations are rarer than δ; conformal risk control promises that
the mean risk is at most ε; the naive choice promises nothing. Two mistakes stand beside them. *First failed* is that of
the code published with 2405.20915, which returns the first threshold that failed in place of the last that passed.
*Rows in the order in which they came* is that of Offramp's first version, whose ``ucb`` did not shuffle them.

**The monitor.** False alarms in streams whose mean loss is exactly the promised risk, and the number of answers until
the alarm when it grows, at once or after a long time in which it was kept.
"""
