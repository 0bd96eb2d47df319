"""Makes resnet18.safetensors and resnet50.safetensors: what PyTorch makes of narrow re-ID ResNets.

torchvision's own blocks and layers, 4 channels in the stem instead of 64, last stride 1, three poolings, BN-neck, L2.
Weights are drawn (seed 7) and rounded to half precision before anything is computed, so that half precision stores
them exactly. Needs torch, torchvision, safetensors. Run in this folder: python resnet.py

Running it again writes the same bytes on the same kind of processor. Sums in another order can move the neck's statistics
to the next number of half precision, and with them the embeddings by 1e-4; hence the fixed number of threads.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

torch.set_num_threads(2)

WIDTH, HEIGHT, INPUT_WIDTH, PICTURES = 4, 64, 32, 3


class NarrowResNet(ResNet):
    """torchvision's ResNet without its fixed width, classifier, and stride of the last stage."""

    def __init__(self, block, layers):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = WIDTH, 1, 1, 64
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._make_layer(block, WIDTH, layers[0])
        self.layer2 = self._make_layer(block, WIDTH * 2, layers[1], stride=2)
        self.layer3 = self._make_layer(block, WIDTH * 4, layers[2], stride=2)
        self.layer4 = self._make_layer(block, WIDTH * 8, layers[3], stride=1)
        self.neck = nn.BatchNorm1d(WIDTH * 8 * block.expansion)

    def feature_map(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def draw(net):
    """Weights and statistics far from their starts, so that nothing cancels."""
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.dim() == 4:
            nn.init.kaiming_normal_(tensor, mode="fan_in")
        elif tensor.dim() == 1:
            nn.init.normal_(tensor, 0, 0.2)
        tensor.copy_(tensor.half().to(tensor.dtype))


@torch.no_grad()
def make(name, block, layers):
    torch.manual_seed(7)
    net = NarrowResNet(block, layers).eval()
    draw(net)
    images = torch.randn(PICTURES, 3, HEIGHT, INPUT_WIDTH).half()
    feature_map = net.feature_map(images.float())
    p = torch.tensor(2.5)
    pooled = {
        "gap": feature_map.mean((2, 3)),
        "gmp": feature_map.amax((2, 3)),
        "gem": feature_map.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p),
    }
    # The neck's statistics are those of the mean pooling, as they would be after training: embeddings spread out.
    net.neck.running_mean.copy_(pooled["gap"].mean(0).half())
    net.neck.running_var.copy_((pooled["gap"].var(0) + 0.01).half())
    net.neck.bias.zero_()
    tensors = {k: v.half() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    tensors["pool.p"] = p.reshape(1).half()
    tensors["golden.images"] = images
    for pooling, vector in pooled.items():
        tensors[f"golden.{pooling}"] = F.normalize(net.neck(vector), dim=1, eps=1e-12)
    cosine = tensors["golden.gap"] @ tensors["golden.gap"].T
    print(name, "cosines between pictures", cosine[0, 1].item(), cosine[0, 2].item(), cosine[1, 2].item())
    with open(f"{name}.safetensors", "wb") as file:
        file.write(save(tensors))


make("resnet18", BasicBlock, [2, 2, 2, 2])
make("resnet50", Bottleneck, [3, 4, 6, 3])
