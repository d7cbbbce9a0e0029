class Late:
    """All exits together, the later the more."""

    def trained(self, model):
        return model.parameters()

    def __call__(self, model, batch):
        outputs = model(batch.inputs)
        weights = [k + 1 for k in range(len(outputs))]
        losses = [w * model.task.loss(o, batch.targets) for w, o in zip(weights, outputs, strict=True)]
        return {"loss": sum(losses) / sum(weights)}
