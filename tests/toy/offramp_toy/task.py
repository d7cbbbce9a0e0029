from offramp.tasks import Classification


class Near(Classification):
    """One class of several, in an order; the next one is good enough."""

    name = "toy-near"
    metric = "nearness"

    def quality(self, output, target):
        return ((self.answer(output) - target).abs() <= 1).float()
