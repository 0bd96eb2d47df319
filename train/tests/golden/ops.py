"""Goldens of single operators: values and gradients from PyTorch in double precision, stored as f32.

Run beside this file: `python ops.py` writes `ops.safetensors`. Needs torch and safetensors.

Every case `NAME` holds its inputs (`NAME.x`, ...), attributes (`NAME.attrs`, i64), output `NAME.y`, the cotangent
`NAME.dy` and the gradients `NAME.dx`, ... of `sum(y * dy)`.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(7)
out = {}


def rand(*shape, scale=1.0):
    # Rounded to f32 first, so that both sides start from the same numbers.
    return (torch.randn(*shape) * scale).float().double()


def case(name, fn, inputs, attrs=None, extra=None):
    leaves = {k: v.clone().requires_grad_(True) for k, v in inputs.items()}
    y = fn(**leaves)
    dy = rand(*y.shape)
    grads = torch.autograd.grad((y * dy).sum(), list(leaves.values()))
    for (k, v), g in zip(inputs.items(), grads):
        out[f"{name}.{k}"] = v.float().contiguous()
        out[f"{name}.d{k}"] = g.float().contiguous()
    out[f"{name}.y"] = y.detach().float().contiguous()
    out[f"{name}.dy"] = dy.float().contiguous()
    if attrs is not None:
        out[f"{name}.attrs"] = torch.tensor(attrs, dtype=torch.int64)
    for k, v in (extra or {}).items():
        out[f"{name}.{k}"] = v.float().contiguous()


# Convolutions: (n, c, h, w, o, kernel, stride, padding, dilation, groups, bias).
CONVS = {
    "stem": (2, 3, 13, 9, 5, (7, 7), (2, 2), (3, 3), (1, 1), 1, False),
    "same3": (3, 4, 7, 5, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
    "point": (2, 5, 4, 3, 7, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
    "point_stride": (2, 6, 7, 5, 4, (1, 1), (2, 2), (0, 0), (1, 1), 1, False),
    "stride3": (1, 4, 9, 8, 3, (3, 3), (2, 2), (1, 1), (1, 1), 1, True),
    "uneven": (2, 2, 8, 11, 3, (2, 5), (3, 2), (0, 2), (1, 1), 1, True),
    "dilated": (1, 3, 9, 10, 4, (3, 3), (1, 1), (2, 2), (2, 2), 1, False),
    "dilated_stride": (2, 3, 11, 9, 4, (3, 2), (2, 1), (1, 2), (2, 3), 1, True),
    "grouped": (2, 6, 6, 5, 9, (3, 3), (1, 1), (1, 1), (1, 1), 3, True),
    "depthwise": (2, 4, 7, 6, 4, (3, 3), (2, 2), (1, 1), (1, 1), 4, False),
    "no_padding": (1, 2, 5, 6, 3, (3, 3), (1, 1), (0, 0), (1, 1), 1, False),
    "wide_padding": (1, 2, 4, 4, 3, (2, 2), (1, 1), (3, 2), (1, 1), 1, False),
    "vectors": (2, 16, 6, 4, 32, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
}
for name, (n, c, h, w, o, k, s, p, d, g, bias) in CONVS.items():
    inputs = {"x": rand(n, c, h, w), "w": rand(o, c // g, *k, scale=0.3)}
    if bias:
        inputs["b"] = rand(o)
    case(
        f"conv2d.{name}",
        lambda x, w, b=None: F.conv2d(x, w, b, s, p, d, g),
        inputs,
        [*s, *p, *d, g],
    )

# Max pooling: (n, c, h, w, kernel, stride, padding).
POOLS = {
    "resnet": (2, 3, 9, 7, (3, 3), (2, 2), (1, 1)),
    "even": (1, 2, 8, 6, (2, 2), (2, 2), (0, 0)),
    "overlap": (2, 17, 6, 5, (3, 2), (1, 1), (1, 1)),
    "gaps": (1, 3, 7, 8, (2, 2), (3, 3), (0, 0)),
}
for name, (n, c, h, w, k, s, p) in POOLS.items():
    case(
        f"max_pool2d.{name}",
        lambda x: F.max_pool2d(x, k, s, p),
        {"x": rand(n, c, h, w)},
        [*k, *s, *p],
    )

x = rand(3, 5, 4, 3)
case("global_avg_pool.map", lambda x: x.mean((2, 3)), {"x": x})
case("global_max_pool.map", lambda x: x.amax((2, 3)), {"x": x})
case(
    "gem_pool.map",
    lambda x, p: x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1.0 / p),
    {"x": rand(3, 5, 4, 3).abs() + 0.1 * (rand(3, 5, 4, 3) > 0), "p": torch.tensor([3.0]).double()},
)
case(
    "gem_pool.clamped",
    lambda x, p: x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1.0 / p),
    {"x": rand(2, 3, 5, 3), "p": torch.tensor([2.5]).double()},
)

relu_x = rand(3, 17)
relu_x[0, :3] = 0.0
case("relu.zeros", lambda x: F.relu(x), {"x": relu_x})
case("add.pair", lambda x, b: x + b, {"x": rand(2, 3, 4, 5), "b": rand(2, 3, 4, 5)})
case("add_relu.pair", lambda x, b: F.relu(x + b), {"x": rand(2, 3, 4, 5), "b": rand(2, 3, 4, 5)})
case("linear.plain", lambda x, w: F.linear(x, w), {"x": rand(5, 7), "w": rand(3, 7)})
case("linear.bias", lambda x, w, b: F.linear(x, w, b), {"x": rand(1, 19), "w": rand(33, 19), "b": rand(33)})

# A zero vector's gradient is defined as zero here, which PyTorch does not do: rows without one only.
case("l2_normalize.rows", lambda x: F.normalize(x, eps=1e-12), {"x": rand(4, 9)})
case("log_softmax.rows", lambda x: F.log_softmax(x, 1), {"x": rand(4, 9, scale=30.0)})


def batch_norm(x, w, b, training, momentum, eps, relu=False, residual=None):
    mean, var = running[0].clone(), running[1].clone()
    y = F.batch_norm(x, mean, var, w, b, training, momentum, eps)
    if residual is not None:
        y = y + residual
    if relu:
        y = F.relu(y)
    after[:] = [mean, var]
    return y


for name, shape in {"map": (3, 5, 4, 3), "rows": (6, 7), "single": (1, 3, 5, 4), "wide": (2, 35, 3, 3)}.items():
    c = shape[1]
    for training in (True, False):
        running = [rand(c), rand(c).abs() + 0.5]
        before = [t.clone() for t in running]
        after = [None, None]
        inputs = {"x": rand(*shape) * 2 + 1, "w": rand(c), "b": rand(c)}
        tag = f"batch_norm.{name}_{'train' if training else 'eval'}"
        case(tag, lambda x, w, b: batch_norm(x, w, b, training, 0.1, 1e-5), inputs)
        for k, v in zip(("mean", "var"), before):
            out[f"{tag}.{k}_before"] = v.float()
        for k, v in zip(("mean", "var"), after):
            out[f"{tag}.{k}_after"] = v.float()
    running, after = [torch.zeros(c).double(), torch.ones(c).double()], [None, None]
    inputs = {"x": rand(*shape), "w": rand(c), "b": rand(c)}
    case(f"batch_norm_relu.{name}", lambda x, w, b: batch_norm(x, w, b, True, 0.1, 1e-5, relu=True), inputs)
    inputs = {"x": rand(*shape), "w": rand(c), "b": rand(c), "r": rand(*shape)}
    case(
        f"batch_norm_add_relu.{name}",
        lambda x, w, b, r: batch_norm(x, w, b, True, 0.1, 1e-5, relu=True, residual=r),
        inputs,
    )

save_file(out, "ops.safetensors")
