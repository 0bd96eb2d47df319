"""Goldens of the optimisers: five steps with given gradients, from torch.optim.

Run beside this file: `python optim.py` writes `optim.safetensors`. Needs torch and safetensors.
"""

import torch
from safetensors.torch import save_file

torch.manual_seed(17)
out = {}
SHAPES = {"a": (3, 5), "b": (7,)}
RUNS = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8),
    "adam_betas": lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.5, 0.99), eps=1e-6),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=False),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True),
}
for run, make in RUNS.items():
    params = {k: torch.nn.Parameter(torch.randn(s).double()) for k, s in SHAPES.items()}
    # `b` learns at a tenth of the rate and without weight decay.
    optim = make(
        [
            {"params": [params["a"]], "lr": 1e-2, "weight_decay": 5e-2},
            {"params": [params["b"]], "lr": 1e-3, "weight_decay": 0.0},
        ]
    )
    for k, p in params.items():
        p.data = p.data.float().double()
        out[f"{run}.{k}.start"] = p.detach().float().clone()
    for step in range(5):
        for k, p in params.items():
            p.grad = torch.randn(SHAPES[k]).float().double() * 0.3
            if step == 2 and k == "b":
                p.grad = None
                continue
            out[f"{run}.{k}.grad{step}"] = p.grad.float().clone()
        optim.step()
        for k, p in params.items():
            out[f"{run}.{k}.after{step}"] = p.detach().float().clone()
save_file(out, "optim.safetensors")
