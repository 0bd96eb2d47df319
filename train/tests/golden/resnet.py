"""Golden of a whole network: a ResNet-18 of width 4 (last stride 1, GAP, BN-neck) from torchvision's blocks.

Run beside this file: `python resnet.py` writes `resnet.safetensors`: input, every weight (torchvision's names), the outputs
in training and in evaluation, the gradient of every parameter and of the input, and the running statistics after the
training forward. Double precision, stored as f32. Needs torch, torchvision and safetensors.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock

torch.manual_seed(11)
WIDTH = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.channels = WIDTH
        self.layer1 = self.stage(WIDTH, 1)
        self.layer2 = self.stage(2 * WIDTH, 2)
        self.layer3 = self.stage(4 * WIDTH, 2)
        self.layer4 = self.stage(8 * WIDTH, 1)
        self.neck = nn.BatchNorm1d(8 * WIDTH)

    def stage(self, planes, stride):
        down = None
        if stride != 1 or self.channels != planes:
            down = nn.Sequential(nn.Conv2d(self.channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        blocks = nn.Sequential(BasicBlock(self.channels, planes, stride, down), BasicBlock(planes, planes))
        self.channels = planes
        return blocks

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        feature_map = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled = feature_map.mean((2, 3))
        neck = self.neck(pooled)
        return {"feature_map": feature_map, "pooled": pooled, "neck": neck, "embedding": F.normalize(neck)}


net = Net()
with torch.no_grad():
    for name, p in net.named_parameters():
        if p.dim() == 4:
            nn.init.kaiming_normal_(p, mode="fan_out")
        elif name.endswith("weight"):
            p.uniform_(0.5, 1.5)
        elif name != "neck.bias":
            p.uniform_(-0.3, 0.3)
    for name, b in net.named_buffers():
        if name.endswith("running_mean"):
            b.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            b.uniform_(0.5, 1.5)
net = net.double()

x = torch.randn(4, 3, 48, 32).float().double()
out = {"input": x.float()}
for name, t in net.state_dict().items():
    if "num_batches" not in name:
        out[f"weight.{name}"] = t.float().clone()

net.eval()
with torch.no_grad():
    for role, t in net(x).items():
        out[f"eval.{role}"] = t.float().contiguous()

net.train()
leaf = x.clone().requires_grad_(True)
roles = net(leaf)
loss = 0.0
for role, t in roles.items():
    cotangent = torch.randn_like(t).float().double() / t.numel() ** 0.5
    out[f"train.{role}"] = t.detach().float().contiguous()
    out[f"cotangent.{role}"] = cotangent.float().contiguous()
    loss = loss + (t * cotangent).sum()
loss.backward()
out["grad_input"] = leaf.grad.float().contiguous()
for name, p in net.named_parameters():
    out[f"grad.{name}"] = p.grad.float().contiguous()
for name, b in net.named_buffers():
    if "num_batches" not in name:
        out[f"after.{name}"] = b.float().clone()
save_file(out, "resnet.safetensors")
