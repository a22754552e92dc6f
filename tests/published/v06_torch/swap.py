import torch


class Average:
    """A running average of a model's parameters, swapped in for evaluations."""

    def __init__(self, model):
        self.average = [p.detach().clone() for p in model.parameters()]
        self.training = None

    @torch.no_grad()
    def update(self, model):
        for average, p in zip(self.average, model.parameters(), strict=True):
            average.lerp_(p, 0.5)

    @torch.no_grad()
    def swap_in(self, model):
        self.training = [p.detach().clone() for p in model.parameters()]
        for average, p in zip(self.average, model.parameters(), strict=True):
            p.copy_(average)

    @torch.no_grad()
    def swap_back(self, model):
        for kept, p in zip(self.training or [], model.parameters(), strict=bool(self.training)):
            p.copy_(kept)
        self.training = None
