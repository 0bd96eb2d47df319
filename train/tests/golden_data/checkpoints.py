"""Small PyTorch checkpoints in the wrappings that trainers use, and the tensors they hold.

    python checkpoints.py      # writes checkpoints/ beside this file; torch, safetensors

Running it again writes the same bytes, except in legacy.pth: the old format names a tensor's storage by its address.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "checkpoints"


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(5)
    storage = torch.randn(40)
    tensors = OrderedDict(
        {
            "conv1.weight": torch.randn(2, 3, 3, 3),
            "transposed": torch.randn(3, 5).t(),
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "view": storage[7:19].view(3, 4),
            "view_of_the_same": storage[10:30:5],
            "half": torch.randn(5).half(),
            "bfloat": torch.randn(3, 1).bfloat16(),
            "double": torch.randn(4, dtype=torch.float64),
            "scalar": torch.tensor(2.5),
        }
    )
    save_file({name: t.float().contiguous().clone() for name, t in tensors.items()}, OUT / "expected.safetensors")
    full = OrderedDict(tensors, **{"bn1.num_batches_tracked": torch.tensor(7)})
    other = OrderedDict({"conv1.weight": torch.zeros(2, 3, 3, 3)})
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.00035, "betas": (0.9, 0.999), "params": [0, 1], "foreach": None}]}
    torch.save(full, OUT / "plain.pth")
    torch.save({"state_dict": full, "epoch": 60, "rank1": 0.941, "optimizer": optimizer, "scheduler": None}, OUT / "torchreid.pth")
    torch.save({"model": full, "optimizer": optimizer, "iteration": 12_345_678_901, "best": True}, OUT / "fastreid.pth")
    torch.save({"student": other, "teacher": full, "epoch": 3, "args": {"arch": "resnet50"}}, OUT / "ema.pth")
    torch.save({"model": {"state_dict": full, "config": [1, "a", 2.0]}}, OUT / "nested.pth")
    torch.save(OrderedDict((n, torch.nn.Parameter(t)) for n, t in tensors.items()), OUT / "parameters.pth")
    torch.save({"epoch": 1, "weights": full}, OUT / "unknown_key.pth")
    torch.save(Module(), OUT / "module.pth")
    torch.save({"labels": torch.arange(4)}, OUT / "integers.pth")
    torch.save(other, OUT / "legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
