"""The contract of each seam as a check, for parts of your own; scikit-learn's ``check_estimator`` is the model.

Each takes a part, tries it on small models and data, and raises ``AssertionError`` with a sentence where it breaks what
Offramp relies on. Offramp's own tests call them for every name of its tables::

    from offramp.testing import check_head


    def test_mine():
        check_head("mine")
"""

from offramp.testing._heads import check_head
from offramp.testing._inputs import check_input
from offramp.testing._objectives import check_objective
from offramp.testing._policies import check_policy
from offramp.testing._tasks import check_task

__all__ = ["check_head", "check_input", "check_objective", "check_policy", "check_task"]
