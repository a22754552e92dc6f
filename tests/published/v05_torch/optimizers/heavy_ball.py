import torch
from optimizers.settings import DAMPENING


class HeavyBall(torch.optim.SGD):
    def __init__(self, params, lr, momentum):
        super().__init__(params, lr=lr, momentum=momentum, dampening=DAMPENING)
