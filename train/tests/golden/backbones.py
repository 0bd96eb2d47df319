"""Goldens of two backbones from timm's own modules: a narrow ViT-S/16 (24 channels, 64 x 32 pixels) and a narrow seresnet18.

Run beside this file: `python backbones.py` writes `backbones.safetensors`. For NET = vit, se: NET.input, every weight under
NET.weight (timm's names and the neck's), NET.pooled and NET.neck in training and in evaluation, cotangents, the gradient of
every parameter and of the input under NET.grad. vit.positions.{old,new}: positions of a 14 x 14 grid resized to 4 x 2 by
torch's interpolate. Double precision, stored as f32. Needs torch, timm and safetensors.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import get_attn
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import VisionTransformer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.manual_seed(7)


class ExcitedNet(nn.Module):
    """A narrow seresnet18 of timm's own blocks (its ResNet has 64 channels in the stem, always)."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.channels = width
        for i in range(4):
            setattr(self, f"layer{i + 1}", self.stage(width << i, 1 if i == 0 else 2))

    def stage(self, planes, stride):
        attn = get_attn("se")
        down = None
        if stride != 1 or self.channels != planes:
            down = nn.Sequential(nn.Conv2d(self.channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        first = BasicBlock(self.channels, planes, stride, down, attn_layer=attn)
        self.channels = planes
        return nn.Sequential(first, BasicBlock(planes, planes, attn_layer=attn))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class WithNeck(nn.Module):
    def __init__(self, backbone, width):
        super().__init__()
        self.backbone, self.neck = backbone, nn.BatchNorm1d(width)

    def forward(self, x):
        pooled = self.backbone(x)
        return {"pooled": pooled, "neck": self.neck(pooled)}


def randomise(net):
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                value.copy_((0.3 * torch.randn_like(value)).exp())
            elif value.dim() == 1:
                value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            else:
                value.normal_(0, (2 / max(value[0].numel(), 1)) ** 0.5)
            if name == "neck.bias":
                value.zero_()
            value.copy_(value.float().double())


def golden(name, net, shape, out):
    randomise(net)
    x = torch.randn(shape).float().double().requires_grad_()
    out[f"{name}.input"] = x
    for key, value in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            out[f"{name}.weight.{key.removeprefix('backbone.')}"] = value.clone()
    net.eval()
    for role, value in net(x).items():
        out[f"{name}.eval.{role}"] = value
    net.train()
    loss = 0
    for role, value in net(x).items():
        cotangent = torch.randn_like(value).float().double()
        out[f"{name}.train.{role}"], out[f"{name}.cotangent.{role}"] = value, cotangent
        loss = loss + (value * cotangent).sum()
    loss.backward()
    out[f"{name}.grad_input"] = x.grad
    for key, value in net.named_parameters():
        out[f"{name}.grad.{key.removeprefix('backbone.')}"] = value.grad


def main():
    out = {}
    vit = VisionTransformer(img_size=(64, 32), patch_size=16, embed_dim=24, depth=12, num_heads=6, num_classes=0, global_pool="token")
    golden("vit", WithNeck(vit, 24), (4, 3, 64, 32), out)
    old = torch.randn(1, 1 + 14 * 14, 24).float().double()
    cells = old[:, 1:].reshape(1, 14, 14, 24).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=(4, 2), mode="bilinear", align_corners=False)
    new = torch.cat([old[:, :1], cells.permute(0, 2, 3, 1).reshape(1, 8, 24)], 1)
    out["vit.positions.old"], out["vit.positions.new"] = old, new

    golden("se", WithNeck(ExcitedNet(4), 32), (4, 3, 64, 32), out)
    save_file({k: v.detach().float().contiguous().clone() for k, v in out.items()}, __file__.removesuffix("py") + "safetensors")


if __name__ == "__main__":
    main()
