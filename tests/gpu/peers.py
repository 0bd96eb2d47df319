#!/usr/bin/env python3
"""The other side of tests/gpu/run: the same work by PyTorch on the same GPU. One JSON line per call.

    peers.py step BATCH f32|tf32|bf16 eager|compiled SECONDS
    peers.py neighbours ROWS WIDTH K
    peers.py about

A step is ResNet-50 (torchvision, channels_last, 256 x 128) with a batch norm for its classifier, forward, backward and Adam; its
batch comes from pinned host memory, as ours does. bf16 is autocast over f32 parameters.
"""

import json
import sys
import time

import torch


def step(batch, precision, mode, seconds):
    import torchvision

    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    device = torch.device("cuda")
    body = torchvision.models.resnet50()
    body.fc = torch.nn.BatchNorm1d(2048)
    model = body.to(device, memory_format=torch.channels_last)
    forward = torch.compile(model) if mode == "compiled" else model
    adam = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=5e-4)
    host = torch.rand(batch, 3, 256, 128).pin_memory()
    target = torch.randn(batch, 2048, device=device)
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16")

    def one():
        images = host.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        adam.zero_grad(set_to_none=True)
        with autocast:
            y = forward(images)
        (y.float() * target).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        adam.step()
        # Ours reads the norm of every step, too.
        return norm.item()

    for _ in range(10):
        one()
    torch.cuda.reset_peak_memory_stats()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        one()
        done += 1
    took = time.perf_counter() - start
    return {
        "images_per_second": done * batch / took,
        "milliseconds": 1e3 * took / done,
        "own_bytes": torch.cuda.max_memory_allocated(),
    }


def neighbours(rows, width, k):
    torch.manual_seed(2)
    torch.backends.cuda.matmul.allow_tf32 = False
    host = torch.nn.functional.normalize(torch.rand(rows, width) - 0.5)

    def find():
        x = host.cuda()
        block = max(1, (256 << 20) // 4 // rows)
        found = [torch.topk(x[i : i + block] @ x.T, k).indices for i in range(0, rows, block)]
        return torch.cat(found).cpu()

    find()
    start = time.perf_counter()
    find()
    return {"seconds": time.perf_counter() - start}


def about():
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def main(argv):
    if argv[:1] == ["step"]:
        result = step(int(argv[1]), argv[2], argv[3], float(argv[4]))
    elif argv[:1] == ["neighbours"]:
        result = neighbours(*(int(a) for a in argv[1:4]))
    elif argv == ["about"]:
        result = about()
    else:
        sys.exit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
