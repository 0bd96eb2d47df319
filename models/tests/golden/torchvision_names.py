"""Makes torchvision_names.json: names and shapes of torchvision's ResNet checkpoints (no weights).

Needs torchvision. Run in this folder: python torchvision_names.py
"""

import json

import torchvision

names = {
    arch: {name: list(tensor.shape) for name, tensor in getattr(torchvision.models, arch)().state_dict().items()}
    for arch in ("resnet18", "resnet50")
}
with open("torchvision_names.json", "w", encoding="utf-8") as file:
    json.dump(names, file, indent=0)
    file.write("\n")
