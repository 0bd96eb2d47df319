"""More goldens of single operators: values and gradients from PyTorch in double precision, stored as f32.

Run beside this file: `python ops_more.py` writes `ops_more.safetensors`. Needs torch and safetensors; made with torch
2.15.0. Rerunning with the same version on the same kind of processor reproduces the file byte for byte.

The metadata of the file holds one entry, `cases`: the names of all cases, separated by commas. A name is
`OPERATOR.VARIANT`. Every case `NAME` holds its inputs (`NAME.x`, ...), its attributes (`NAME.attrs`, i64, and
`NAME.params`, f32), its output `NAME.y`, the cotangent `NAME.dy` and the gradient of `sum(y * dy)` in each input
(`NAME.dx`, ...). Inputs and float attributes are rounded to f32 before anything is computed. An input without a
gradient is frozen. Images are (n, c, h, w); pairs are (vertical, horizontal).

| operator            | inputs                     | attrs (i64)                              | params (f32)      |
|---------------------|----------------------------|------------------------------------------|-------------------|
| conv_transpose2d    | x, w, [b]                  | sh sw ph pw oph opw dh dw groups         |                   |
| max_pool2d          | x                          | kh kw sh sw ph pw                        |                   |
| avg_pool2d          | x                          | kh kw sh sw ph pw count_include_pad      |                   |
| adaptive_avg_pool2d | x                          | oh ow                                    |                   |
| adaptive_max_pool2d | x                          | oh ow                                    |                   |
| global_avg_pool     | x                          |                                          |                   |
| global_max_pool     | x                          |                                          |                   |
| gem_pool            | x, p                       |                                          | minimum of x      |
| batch_norm          | x, [w, b]                  | training affine bias_frozen              | momentum eps      |
| ghost_batch_norm    | x, w, b                    | groups                                   | momentum eps      |
| domain_batch_norm   | x, w0, b0, w1, b1          | images of domain 0, of domain 1          | momentum eps      |
| instance_norm       | x, [w, b]                  | affine                                   | eps               |
| adain               | x, gamma, beta             |                                          | eps               |
| adain_style         | x, s                       |                                          | eps               |
| layer_norm          | x, [w, b]                  | trailing dimensions normalised, affine   | eps               |
| ibn                 | x, in_w, in_b, bn_w, bn_b  | training, channels of the instance norm  | momentum eps      |
| leaky_relu          | x                          |                                          | slope             |
| relu, tanh, sigmoid | x                          |                                          |                   |
| gelu                | x                          |                                          |                   |
| softplus            | x                          |                                          | beta threshold    |
| upsample_nearest    | x                          | oh ow                                    |                   |
| l2_normalize        | x                          | dimension                                | eps               |
| gradient_reversal   | x                          |                                          | lambda            |
| view_conv2d         | base, w, b                 | sh sw ph pw dh dw groups                 |                   |
| view_batch_norm     | base, w, b                 | training affine bias_frozen              | momentum eps      |
| view_l2_normalize   | base                       | dimension                                | eps               |
| gradient_penalty    | x, w1 b1 w2 b2 w3 b3,      | instance norm or not                     | slope eps         |
|                     | [in_w in_b]                |                                          |                   |

What they are, and what PyTorch does at the edges:

* conv_transpose2d: `w` is (in, out / groups, kh, kw). Output height (h - 1) sh - 2 ph + dh (kh - 1) + oph + 1. `b`, if
  there, has one entry per output channel.
* max_pool2d: no dilation, no ceil mode; padding is minus infinity. Of equal values in a window the first in row-major
  order gets the whole gradient. In `.default_stride` the stride is the kernel, as it is when none is given. A
  window's pixel may be the maximum of several windows: gradients add up.
* avg_pool2d: with count_include_pad the divisor is always kh kw, without it the number of pixels inside the image.
* adaptive pooling: bin i spans floor(i h / oh) to ceil((i + 1) h / oh), so bins may overlap. Ties as in max_pool2d.
* global_avg_pool, global_max_pool: the output is (n, c). The maximum is `adaptive_max_pool2d` to 1 x 1, so that the
  first of equal maxima gets the whole gradient (`amax` would share it out evenly).
* gem_pool: y = mean(max(x, minimum)^p)^(1/p), (n, c); `p` has one entry. Where x is below the minimum its gradient
  is zero, and a channel wholly below has no gradient in p but for rounding.
* batch_norm: `mean_before`, `var_before`, `mean_after`, `var_after` are the running statistics. The batch is normalised
  with the biased variance; after = (1 - momentum) before + momentum batch, with the *unbiased* batch variance
  (n / (n - 1), n the number of values per channel). In evaluation the running statistics normalise, do not move
  and take no gradient. `.constant_channel` has a channel of variance zero, `.offset` one with a mean far from zero.
* ghost_batch_norm: the batch is cut into contiguous groups of n / groups images; each is normalised with its own
  statistics by one BatchNorm, in order, so that the running statistics move `groups` times, by `momentum` each
  (`mean_after`, `var_after`), with the unbiased variance of the group. `mean_after_first`, `var_after_first` are those
  after the first group alone. The gradients of w and b are sums over all groups.
* domain_batch_norm: the images of domain 0 come first; each domain has a batch norm of its own, with its own affine
  parameters and running statistics (`mean_before0`, ..., `var_after1`).
* instance_norm: biased variance over the pixels of one image and channel; no running statistics.
* adain: y = gamma[n, c] (x - mean) / sqrt(var + eps) + beta[n, c], biased variance per image and channel.
* adain_style: the same with gamma = sqrt(var(s) + eps) and beta = mean(s) of a second map `s` (its size may differ).
  The variance is biased for both maps, and eps is inside both roots. (Widely used implementations take the
  unbiased variance for both; that is *not* done here.)
* layer_norm: biased variance; `w`, `b` have the shape of the normalised dimensions.
* ibn: the first half = floor(c / 2) = int(c * 0.5) channels go through an affine instance norm, the rest through a
  batch norm (running statistics as in batch_norm, for c - half channels). IBN-Net's class cuts with
  `torch.split(x, half, 1)`, which fails for an odd number of channels (three pieces); the odd cases here cut into half
  and c - half.
* leaky_relu: at exact zeros of either sign the gradient is slope * dy; -0.0 stays -0.0. relu: at zeros it is 0.
* gelu: with the error function. softplus: log(1 + exp(beta x)) / beta, and x itself where beta x > threshold.
* upsample_nearest: output pixel i takes input pixel floor(i h / oh). PyTorch finds it in floating point, and for a few
  sizes (2 to 82, say) is one off; not for those here.
* l2_normalize: x / max(norm, eps) along the dimension. A zero vector stays zero, and its gradient is finite but
  huge: dx = dy / eps (the norm passes none on at zero, nor below eps, where the divisor is the constant eps). So too
  for a vector shorter than eps.
* gradient_reversal: y = x, dx = -lambda dy.
* view_...: the input of the operator is not contiguous: x = base.permute(permute), then of every dimension d the
  elements slices[d] = (start, stop, step), start included and stop not. `x` is that input, copied; `dbase` has the
  shape of the base, with zeros where no element was taken. `NAME.permute` and `NAME.slices` are i64.
* gradient_penalty: D is conv 3x3 stride 2 padding 1 (w1, b1) -> [affine instance norm (in_w, in_b)] -> leaky_relu ->
  conv 3x3 stride 1 padding 1 (w2, b2) -> leaky_relu -> mean over the pixels -> linear to one (w3, b3).
  `y` = mean over the images of (||grad_x D(x)||_2 - 1)^2, without any eps in the norm; `score` is D(x), (n, 1);
  `slope_x` is grad_x D(x); `norms` its norm per image; `dy` is one. All gradients are those of y, through
  grad_x D(x). A leaky ReLU has no second derivative: without instance norm the gradients in x and in all biases are
  exactly zero; with it that in x is not, and those in the biases still are (that in b1 but for rounding, about
  1e-17). PyTorch gives b3 no gradient (`None`, as it does not take part): stored as zeros. No value before a leaky
  ReLU is closer to zero than 1e-3.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(23)
torch.set_num_threads(1)
out = {}
cases = []


def exact(x):
    # Rounded to f32, so that both sides start from the same numbers.
    return x.float().double()


def rand(*shape, scale=1.0):
    return exact(torch.randn(*shape) * scale)


def single(value):
    # The f32 nearest to a float attribute, as a double.
    return torch.tensor(value, dtype=torch.float32).item()


def keep(name, **tensors):
    for k, v in tensors.items():
        assert v.isfinite().all(), (name, k)
        out[f"{name}.{k}"] = v.detach().float().contiguous().clone()


def integers(name, **lists):
    for k, v in lists.items():
        out[f"{name}.{k}"] = torch.tensor(v, dtype=torch.int64)


def begin(name, attrs, params):
    assert name not in cases, name
    cases.append(name)
    if attrs is not None:
        integers(name, attrs=attrs)
    if params is not None:
        out[f"{name}.params"] = torch.tensor(params, dtype=torch.float32)


def case(name, fn, inputs, attrs=None, params=None, frozen=()):
    begin(name, attrs, params)
    inputs = {k: exact(v) for k, v in inputs.items()}
    leaves = {k: v.clone().requires_grad_(k not in frozen) for k, v in inputs.items()}
    y = fn(**leaves)
    dy = rand(*y.shape)
    learnt = [k for k in inputs if k not in frozen]
    grads = torch.autograd.grad((y * dy).sum(), [leaves[k] for k in learnt])
    keep(name, **inputs)
    keep(name, **{f"d{k}": g for k, g in zip(learnt, grads)})
    keep(name, y=y, dy=dy)


# Transposed convolutions: (n, c, h, w, o, kernel, stride, padding, output padding, dilation, groups, bias).
TRANSPOSED = {
    "k2_s2": (2, 3, 5, 3, 4, (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), 1, False),
    "k3_s1": (2, 4, 5, 7, 3, (3, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
    "k3_s2_doubling": (1, 5, 4, 3, 3, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1, True),
    "k4_s2": (2, 3, 3, 5, 2, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1, True),
    "k4_s3": (1, 2, 3, 4, 3, (4, 4), (3, 3), (0, 2), (0, 1), (1, 1), 1, False),
    "k5_s1": (2, 2, 5, 3, 3, (5, 5), (1, 1), (2, 2), (0, 0), (1, 1), 1, False),
    "k5_s2": (1, 3, 3, 4, 2, (5, 5), (2, 2), (2, 2), (1, 1), (1, 1), 1, True),
    "k7_s3": (1, 2, 3, 2, 2, (7, 7), (3, 3), (2, 2), (2, 1), (1, 1), 1, True),
    "uneven": (3, 2, 4, 3, 5, (2, 5), (3, 1), (0, 2), (1, 0), (1, 1), 1, True),
    "dilated": (1, 3, 4, 5, 2, (3, 3), (1, 1), (2, 1), (1, 0), (2, 2), 1, False),
    "dilated_stride": (2, 2, 3, 4, 3, (3, 2), (2, 3), (1, 1), (1, 2), (2, 3), 1, True),
    "grouped": (2, 6, 3, 4, 9, (3, 3), (2, 2), (1, 1), (1, 0), (1, 1), 3, True),
    "grouped_dilated": (1, 4, 3, 3, 2, (3, 3), (2, 1), (1, 2), (0, 1), (1, 2), 2, False),
    "depthwise": (2, 5, 3, 4, 5, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 5, False),
    "one_pixel": (1, 7, 1, 1, 3, (4, 3), (1, 1), (0, 0), (0, 0), (1, 1), 1, True),
    "point": (2, 3, 3, 5, 4, (1, 1), (2, 2), (0, 0), (1, 1), (1, 1), 1, True),
    "vectors": (1, 17, 4, 3, 18, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1, True),
}
for name, (n, c, h, w, o, k, s, p, op, d, g, bias) in TRANSPOSED.items():
    inputs = {"x": rand(n, c, h, w), "w": rand(c, o // g, *k, scale=0.3)}
    if bias:
        inputs["b"] = rand(o)
    case(
        f"conv_transpose2d.{name}",
        lambda x, w, b=None: F.conv_transpose2d(x, w, b, s, p, op, g, d),
        inputs,
        [*s, *p, *op, *d, g],
    )


def ties(*shape):
    # Few different values, so that most windows hold their maximum more than once.
    return torch.randint(-1, 2, shape).double()


# Max pooling: (input, kernel, stride, padding).
MAX_POOLS = {
    "padded": (rand(2, 3, 7, 5), (3, 3), (2, 2), (1, 1)),
    "default_stride": (rand(2, 2, 8, 7), (2, 3), (2, 3), (0, 0)),
    "uneven": (rand(1, 3, 9, 6), (4, 3), (3, 1), (2, 0)),
    "gaps": (rand(1, 2, 8, 11), (2, 2), (3, 4), (1, 1)),
    "negative": (-rand(2, 2, 5, 5).abs() - 0.1, (3, 3), (2, 2), (1, 1)),
    "ties": (ties(2, 3, 7, 6), (3, 3), (2, 2), (1, 1)),
    "ties_overlap": (ties(1, 2, 6, 5), (3, 2), (1, 1), (1, 1)),
    "all_equal": (torch.full((1, 2, 5, 4), 0.5).double(), (3, 3), (2, 1), (1, 1)),
    "rectified": (F.relu(rand(2, 3, 7, 7) - 0.7), (3, 3), (2, 2), (1, 1)),
}
for name, (x, k, s, p) in MAX_POOLS.items():
    case(f"max_pool2d.{name}", lambda x: F.max_pool2d(x, k, s, p), {"x": x}, [*k, *s, *p])

# Average pooling: (shape, kernel, stride, padding).
AVG_POOLS = {
    "plain": ((2, 3, 6, 7), (2, 2), (2, 2), (0, 0)),
    "padded": ((2, 3, 7, 5), (3, 3), (2, 2), (1, 1)),
    "uneven": ((1, 2, 5, 8), (4, 3), (1, 2), (2, 1)),
    "gaps": ((1, 3, 9, 7), (2, 2), (3, 4), (1, 0)),
}
for name, (shape, k, s, p) in AVG_POOLS.items():
    for tag, counted in (("counted", True), ("uncounted", False)):
        case(
            f"avg_pool2d.{name}_{tag}",
            lambda x: F.avg_pool2d(x, k, s, p, count_include_pad=counted),
            {"x": rand(*shape)},
            [*k, *s, *p, int(counted)],
        )

for name, (shape, size) in {
    "even": ((2, 3, 6, 4), (3, 2)),
    "overlap": ((2, 3, 7, 5), (3, 2)),
    "enlarge": ((1, 2, 3, 4), (5, 6)),
    "stripes": ((1, 4, 11, 5), (6, 1)),
    "global": ((3, 5, 7, 3), (1, 1)),
}.items():
    case(
        f"adaptive_avg_pool2d.{name}",
        lambda x: F.adaptive_avg_pool2d(x, size),
        {"x": rand(*shape)},
        [*size],
    )
    case(
        f"adaptive_max_pool2d.{name}",
        lambda x: F.adaptive_max_pool2d(x, size),
        {"x": rand(*shape)},
        [*size],
    )
    case(
        f"adaptive_max_pool2d.{name}_ties",
        lambda x: F.adaptive_max_pool2d(x, size),
        {"x": ties(*shape)},
        [*size],
    )

for name, x in {"one": rand(1, 7, 5, 3), "wide": rand(3, 19, 3, 5), "pixel": rand(2, 3, 1, 1)}.items():
    case(f"global_avg_pool.{name}", lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), {"x": x})
    case(f"global_max_pool.{name}", lambda x: F.adaptive_max_pool2d(x, 1).flatten(1), {"x": x})
case("global_max_pool.ties", lambda x: F.adaptive_max_pool2d(x, 1).flatten(1), {"x": ties(2, 5, 3, 4)})

mixed = rand(2, 4, 5, 3)
mixed[0, 1] = 0.0  # a channel that a ReLU has emptied
mixed[1, 2] = -mixed[1, 2].abs() - 0.1
for name, (x, p) in {
    "positive": (rand(3, 5, 3, 5).abs() + 0.05, 3.0),
    "one": (rand(1, 7, 7, 3).abs() + 0.05, 4.6),
    "mean": (rand(2, 3, 5, 5).abs() + 0.05, 1.0),
    "rectified": (F.relu(rand(2, 6, 5, 3)), 3.0),
    "emptied": (mixed, 2.25),
}.items():
    floor = single(1e-6)
    case(
        f"gem_pool.{name}",
        lambda x, p: x.clamp(min=floor).pow(p).mean((2, 3)).pow(1.0 / p),
        {"x": x, "p": torch.tensor([p], dtype=torch.float32).double()},
        None,
        [floor],
    )


def batch_norm_module(channels, momentum, eps, mean=None, var=None):
    norm = torch.nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False).double()
    norm.running_mean.copy_(rand(channels) if mean is None else mean)
    norm.running_var.copy_(exact(rand(channels).abs() + 0.5) if var is None else var)
    return norm


def normalised(norm, x, w=None, b=None):
    # One forward pass of a BatchNorm that holds the running statistics; w and b come from outside. In training the
    # module counts the batch and then calls this very function.
    return F.batch_norm(x, norm.running_mean, norm.running_var, w, b, norm.training, norm.momentum, norm.eps)


def running(name, norm, suffix):
    keep(name, **{f"mean_{suffix}": norm.running_mean, f"var_{suffix}": norm.running_var})


constant = rand(3, 4, 3, 3)
constant[:, 1] = 1.5
offset = rand(3, 3, 5, 4) + 100.0
# Batch norm: (input, affine, bias frozen, momentum, eps).
NORMS = {
    "map": (rand(3, 5, 3, 5) * 2 + 1, True, False, 0.1, 1e-5),
    "momentum": (rand(2, 3, 5, 3) - 0.5, True, False, 0.37, 1e-3),
    "frozen_bias": (rand(4, 5, 3, 3) * 2 + 1, True, True, 0.1, 1e-5),
    "no_affine": (rand(3, 4, 5, 3) * 2 + 1, False, False, 0.1, 1e-5),
    "one_image": (rand(1, 3, 17, 19) + 0.3, True, False, 0.1, 1e-5),
    "rows": (rand(7, 5) * 2 + 1, True, False, 0.1, 1e-5),
    "rows_frozen_bias": (rand(9, 19) * 2, True, True, 0.1, 1e-5),
    "rows_no_affine": (rand(5, 3) - 1, False, False, 0.2, 1e-5),
    "constant_channel": (constant, True, False, 0.1, 1e-5),
    "offset": (offset, True, False, 0.1, 1e-5),
}
for name, (x, affine, frozen, momentum, eps) in NORMS.items():
    momentum, eps = single(momentum), single(eps)
    for training in (True, False):
        tag = f"batch_norm.{name}_{'train' if training else 'eval'}"
        c = x.shape[1]
        inputs = {"x": x}
        if affine:
            inputs |= {"w": rand(c), "b": rand(c)}
        norm = batch_norm_module(c, momentum, eps).train(training)
        running(tag, norm, "before")
        case(
            tag,
            lambda x, w=None, b=None: normalised(norm, x, w, b),
            inputs,
            [int(training), int(affine), int(frozen)],
            [momentum, eps],
            frozen=("b",) if frozen else (),
        )
        running(tag, norm, "after")

# Ghost batch norm: (shape, momentum), each in 1, 2 and 4 groups, so that the batch is a multiple of four.
for name, (shape, momentum) in {
    "map": ((8, 5, 3, 3), 0.1),
    "one_each": ((4, 3, 5, 4), 0.25),
    "rows": ((12, 7), 0.1),
}.items():
    momentum, eps = single(momentum), single(1e-5)
    x, w, b = rand(*shape) * 2 + 1, rand(shape[1]), rand(shape[1])
    # Groups that differ much, so that the order of the running updates shows.
    x = x * torch.linspace(0.5, 2.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    mean, var = rand(shape[1]), exact(rand(shape[1]).abs() + 0.5)
    for groups in (1, 2, 4):
        tag = f"ghost_batch_norm.{name}_{groups}"
        norm = batch_norm_module(shape[1], momentum, eps, mean=mean, var=var).train()
        running(tag, norm, "before")

        def ghost(x, w, b):
            parts = []
            for i, part in enumerate(x.chunk(groups)):
                parts.append(normalised(norm, part, w, b))
                if i == 0:
                    running(tag, norm, "after_first")
            return torch.cat(parts)

        case(tag, ghost, {"x": x, "w": w, "b": b}, [groups], [momentum, eps])
        running(tag, norm, "after")

for name, (shape, split) in {"halves": ((6, 5, 3, 4), (3, 3)), "rows": ((9, 7), (4, 5))}.items():
    tag = f"domain_batch_norm.{name}"
    momentum, eps = single(0.1), single(1e-5)
    norms = [batch_norm_module(shape[1], momentum, eps).train() for _ in split]
    for i, norm in enumerate(norms):
        running(tag, norm, f"before{i}")

    def domains(x, w0, b0, w1, b1):
        first, second = x.split(split)
        return torch.cat([normalised(norms[0], first, w0, b0), normalised(norms[1], second, w1, b1)])

    inputs = {"x": rand(*shape)} | {k: rand(shape[1]) for k in ("w0", "b0", "w1", "b1")}
    inputs["x"][split[0] :] = inputs["x"][split[0] :] * 2 + 1
    case(tag, domains, inputs, [*split], [momentum, eps])
    for i, norm in enumerate(norms):
        running(tag, norm, f"after{i}")

EPS = single(1e-5)
for name, (shape, affine) in {
    "plain": ((3, 5, 3, 5), False),
    "affine": ((2, 4, 5, 3), True),
    "one": ((1, 3, 7, 9), True),
    "wide": ((2, 19, 3, 3), False),
}.items():
    c = shape[1]
    inputs = {"x": rand(*shape) * 2 + 1} | ({"w": rand(c), "b": rand(c)} if affine else {})
    case(
        f"instance_norm.{name}",
        lambda x, w=None, b=None: F.instance_norm(x, weight=w, bias=b, eps=EPS),
        inputs,
        [int(affine)],
        [EPS],
    )

for name, shape in {"map": (3, 5, 3, 5), "one": (1, 4, 7, 3), "wide": (2, 17, 3, 3)}.items():
    case(
        f"adain.{name}",
        lambda x, gamma, beta: F.instance_norm(x, eps=EPS) * gamma[..., None, None] + beta[..., None, None],
        {"x": rand(*shape) * 2 + 1, "gamma": rand(*shape[:2]), "beta": rand(*shape[:2])},
        None,
        [EPS],
    )


def adain_style(x, s):
    var, mean = torch.var_mean(s, dim=(2, 3), correction=0, keepdim=True)
    return F.instance_norm(x, eps=EPS) * (var + EPS).sqrt() + mean


for name, (shape, size) in {
    "same": ((3, 5, 5, 3), (5, 3)),
    "other": ((2, 4, 3, 5), (7, 3)),
    "one": ((1, 3, 7, 5), (3, 3)),
}.items():
    inputs = {"x": rand(*shape) * 2 + 1, "s": rand(*shape[:2], *size) * 0.5 - 1}
    case(f"adain_style.{name}", adain_style, inputs, None, [EPS])

for name, (shape, dims, affine) in {
    "last": ((5, 19), 1, True),
    "last_no_affine": ((4, 7), 1, False),
    "last_sequence": ((2, 5, 9), 1, True),
    "one": ((1, 33), 1, True),
    "image": ((3, 4, 3, 5), 3, True),
    "image_one": ((1, 3, 5, 7), 3, True),
    "image_no_affine": ((2, 5, 3, 3), 3, False),
}.items():
    size = shape[len(shape) - dims :]
    inputs = {"x": rand(*shape) * 2 + 1} | ({"w": rand(*size), "b": rand(*size)} if affine else {})
    case(
        f"layer_norm.{name}",
        lambda x, w=None, b=None: F.layer_norm(x, size, w, b, EPS),
        inputs,
        [dims, int(affine)],
        [EPS],
    )

for name, (shape, training) in {
    "even_train": ((3, 6, 3, 5), True),
    "even_eval": ((3, 6, 3, 5), False),
    "odd_train": ((2, 7, 5, 3), True),
    "odd_eval": ((2, 7, 5, 3), False),
    "one_train": ((1, 4, 5, 7), True),
}.items():
    tag, c, momentum = f"ibn.{name}", shape[1], single(0.1)
    half = int(c * 0.5)
    norm = batch_norm_module(c - half, momentum, EPS).train(training)
    running(tag, norm, "before")
    case(
        tag,
        lambda x, in_w, in_b, bn_w, bn_b: torch.cat(
            [
                F.instance_norm(x[:, :half], weight=in_w, bias=in_b, eps=EPS),
                normalised(norm, x[:, half:], bn_w, bn_b),
            ],
            1,
        ),
        {
            "x": rand(*shape) * 2 + 1,
            "in_w": rand(half),
            "in_b": rand(half),
            "bn_w": rand(c - half),
            "bn_b": rand(c - half),
        },
        [int(training), half],
        [momentum, EPS],
    )
    running(tag, norm, "after")


def zeros(*shape):
    x = rand(*shape)
    x.view(-1)[:5] = 0.0
    x.view(-1)[5:9] = -0.0
    return x


for name, slope in {"slope_001": 0.01, "slope_02": 0.2}.items():
    slope = single(slope)
    case(f"leaky_relu.{name}", lambda x: F.leaky_relu(x, slope), {"x": zeros(3, 17)}, None, [slope])
    case(f"leaky_relu.{name}_one", lambda x: F.leaky_relu(x, slope), {"x": zeros(1, 3, 5, 3)}, None, [slope])
case("relu.zeros", lambda x: F.relu(x), {"x": zeros(3, 17)})
case("relu.one", lambda x: F.relu(x), {"x": zeros(1, 3, 5, 3)})


def extremes(*shape):
    x = rand(*shape, scale=2.0)
    x.view(-1)[:9] = torch.tensor([0.0, -0.0, 12.0, -12.0, 19.5, 20.5, -20.5, 100.0, -100.0]).double()
    return x


for name, fn in {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu}.items():
    case(f"{name}.rows", lambda x: fn(x), {"x": extremes(3, 17)})
    case(f"{name}.one", lambda x: fn(x), {"x": rand(1, 3, 5, 3)})
case("softplus.rows", lambda x: F.softplus(x, 1.0, 20.0), {"x": extremes(3, 17)}, None, [1.0, 20.0])
case("softplus.beta", lambda x: F.softplus(x, 2.5, 20.0), {"x": extremes(1, 3, 5, 3)}, None, [2.5, 20.0])

for name, (shape, size) in {
    "twice": ((2, 3, 5, 3), (10, 6)),
    "thrice": ((1, 4, 3, 5), (9, 15)),
    "uneven": ((2, 2, 5, 3), (7, 8)),
    "uneven_one": ((1, 3, 4, 7), (9, 12)),
    "one_axis": ((2, 3, 3, 5), (8, 5)),
    "pixel": ((1, 5, 1, 1), (4, 3)),
    "smaller": ((2, 2, 9, 7), (4, 5)),
}.items():
    x = rand(*shape)
    # The source pixel is found in the precision of the input: sizes on which both agree, and with the integers.
    index = [torch.tensor([i * a // b for i in range(b)]) for a, b in zip(shape[2:], size)]
    expected = x[:, :, index[0]][:, :, :, index[1]]
    assert torch.equal(F.interpolate(x, size, mode="nearest"), expected)
    assert torch.equal(F.interpolate(x.float(), size, mode="nearest").double(), expected)
    case(f"upsample_nearest.{name}", lambda x: F.interpolate(x, size, mode="nearest"), {"x": x}, [*size])

NORM_EPS = single(1e-12)
zero_row, tiny_row, channels = rand(5, 7), rand(3, 9), rand(2, 5, 3, 3)
zero_row[2] = 0.0
tiny_row[1] *= 1e-14
for name, x in {
    "rows": rand(4, 19),
    "one": rand(1, 7),
    "zero_row": zero_row,
    "one_zero_row": torch.zeros(1, 5).double(),
    "tiny_row": tiny_row,
    "channels": channels,
}.items():
    case(f"l2_normalize.{name}", lambda x: F.normalize(x, dim=1, eps=NORM_EPS), {"x": x}, [1], [NORM_EPS])


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return -ctx.factor * dy, None


for name, (shape, factor) in {"one": ((3, 7), 1.0), "fraction": ((1, 3, 5, 3), 0.37), "zero": ((2, 5), 0.0)}.items():
    factor = single(factor)
    case(f"gradient_reversal.{name}", lambda x: Reversal.apply(x, factor), {"x": rand(*shape)}, None, [factor])


def view(base, permute, slices):
    return base.permute(permute)[tuple(slice(*s) for s in slices)]


# Views: (operator, base shape, permutation, slices).
VIEWS = {
    "view_conv2d.channels_last": ((2, 5, 7, 3), (0, 3, 1, 2), ((0, 2, 1), (0, 3, 1), (0, 5, 1), (0, 7, 1))),
    "view_conv2d.sliced": ((3, 5, 7, 9), (0, 1, 2, 3), ((1, 3, 1), (1, 4, 1), (1, 7, 1), (0, 9, 2))),
    "view_conv2d.transposed": ((1, 3, 7, 5), (0, 1, 3, 2), ((0, 1, 1), (0, 3, 1), (0, 5, 1), (0, 7, 1))),
    "view_batch_norm.transposed_rows": ((5, 9), (1, 0), ((0, 9, 1), (0, 5, 1))),
    "view_batch_norm.sliced_rows": ((11, 7), (0, 1), ((1, 11, 2), (2, 7, 1))),
    "view_batch_norm.channels_last": ((3, 4, 5, 3), (0, 3, 1, 2), ((0, 3, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1))),
    "view_batch_norm.sliced": ((4, 5, 6, 7), (0, 1, 2, 3), ((0, 4, 2), (1, 4, 1), (0, 5, 1), (1, 7, 3))),
    "view_l2_normalize.transposed": ((7, 4), (1, 0), ((0, 4, 1), (0, 7, 1))),
    "view_l2_normalize.sliced": ((9, 11), (0, 1), ((0, 9, 3), (1, 10, 2))),
}
for name, (shape, permute, slices) in VIEWS.items():
    base = rand(*shape)
    x = view(base, permute, slices)
    assert not x.is_contiguous(), name
    keep(name, x=x)
    integers(name, permute=[*permute], slices=[list(s) for s in slices])
    c = x.shape[1]
    if name.startswith("view_conv2d"):
        s, p, d, g = (2, 1), (1, 1), (1, 1), 1
        case(
            name,
            lambda base, w, b: F.conv2d(view(base, permute, slices), w, b, s, p, d, g),
            {"base": base, "w": rand(4, c, 3, 3, scale=0.3), "b": rand(4)},
            [*s, *p, *d, g],
        )
    elif name.startswith("view_batch_norm"):
        momentum = single(0.1)
        norm = batch_norm_module(c, momentum, EPS).train()
        running(name, norm, "before")
        case(
            name,
            lambda base, w, b: normalised(norm, view(base, permute, slices), w, b),
            {"base": base, "w": rand(c), "b": rand(c)},
            [1, 1, 0],
            [momentum, EPS],
        )
        running(name, norm, "after")
    else:
        case(
            name,
            lambda base: F.normalize(view(base, permute, slices), dim=1, eps=NORM_EPS),
            {"base": base},
            [1],
            [NORM_EPS],
        )

SLOPE = single(0.2)


def discriminator(x, w1, b1, w2, b2, w3, b3, in_w=None, in_b=None):
    first = F.conv2d(x, w1, b1, stride=2, padding=1)
    if in_w is not None:
        first = F.instance_norm(first, weight=in_w, bias=in_b, eps=EPS)
    second = F.conv2d(F.leaky_relu(first, SLOPE), w2, b2, padding=1)
    score = F.linear(F.leaky_relu(second, SLOPE).mean((2, 3)), w3, b3)
    return score, min(first.abs().min().item(), second.abs().min().item())


# Gradient penalty: (shape of x, channels of the two convolutions, instance norm).
for name, (shape, c1, c2, instance) in {
    "small": ((2, 3, 5, 5), 4, 3, False),
    "one": ((1, 3, 9, 7), 3, 5, False),
    "instance": ((3, 2, 7, 6), 4, 3, True),
}.items():
    tag = f"gradient_penalty.{name}"
    begin(tag, [int(instance)], [SLOPE, EPS])
    while True:
        inputs = {
            "x": rand(*shape),
            "w1": rand(c1, shape[1], 3, 3, scale=0.6),
            "b1": rand(c1, scale=0.3),
            "w2": rand(c2, c1, 3, 3, scale=0.6),
            "b2": rand(c2, scale=0.3),
            "w3": rand(1, c2, scale=3.0),
            "b3": rand(1),
        }
        if instance:
            inputs |= {"in_w": exact(rand(c1) * 0.3 + 1), "in_b": rand(c1, scale=0.3)}
        # Again until no leaky ReLU is near its kink, where f32 might fall on the other side.
        if discriminator(**inputs)[1] > 1e-3:
            break
    leaves = {k: v.clone().requires_grad_(True) for k, v in inputs.items()}
    score, _ = discriminator(**leaves)
    (slope_x,) = torch.autograd.grad(score.sum(), leaves["x"], create_graph=True)
    norms = slope_x.flatten(1).norm(2, dim=1)
    y = ((norms - 1.0) ** 2).mean().reshape(1)
    grads = torch.autograd.grad(y.sum(), list(leaves.values()), materialize_grads=True)
    keep(tag, **inputs, score=score, slope_x=slope_x, norms=norms, y=y, dy=torch.ones(1))
    keep(tag, **{f"d{k}": g for k, g in zip(leaves, grads)})

save_file(out, "ops_more.safetensors", metadata={"cases": ",".join(cases)})
