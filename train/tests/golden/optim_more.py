"""More goldens of the optimisers, clipping, schedules and moving averages, from torch.optim and torch.nn.utils.

Run beside this file: `python optim_more.py` writes `optim_more.safetensors`. Needs torch and safetensors; made with
torch 2.15.0. Rerunning with the same version on the same kind of processor reproduces the file byte for byte.

The metadata of the file holds one entry, `cases`: the names of all cases, separated by commas. All is computed in
double precision and stored as f32. Parameters, gradients and all float settings (`NAME.params`) are rounded to f32
first; `NAME.attrs` is i64. There are two parameter groups: `a` of shape (3, 5) and `b` of shape (7,), which learns at
a tenth of the rate and without weight decay.

Runs of twelve steps, `sgd.*`, `adam.*` and `adamw.*`: `NAME.a.start`, then for every step i from 0 to 11 the gradient
`NAME.a.grad{i}` and the parameter after the step, `NAME.a.after{i}`; likewise for `b`.

| run     | params (f32), a row per group: a, b          | attrs (i64)            |
|---------|----------------------------------------------|------------------------|
| sgd.*   | rate, momentum, dampening, weight decay      | nesterov               |
| adam.*  | rate, beta1, beta2, eps, weight decay        | amsgrad, decoupled (0) |
| adamw.* | the same                                     | amsgrad, decoupled (1) |

* SGD: g += weight_decay p; buffer = momentum buffer + (1 - dampening) g, but the first buffer is g itself, undamped;
  p -= rate buffer. Nesterov: p -= rate (g + momentum buffer), with the new buffer. Momentum 0: p -= rate g.
* Adam: weight decay goes into the gradient. AdamW: p *= 1 - rate weight_decay first. Then, in step t from 1,
  p -= rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
* AMSGrad: the largest v so far takes the place of v, taken *before* the bias correction, which is that of the
  step. The gradients shrink in these runs, so that it differs from v.
* `.skip`: `b` has no gradient at step 5 (there is no `NAME.b.grad5`). It then stays as it is, without weight decay or
  momentum, and its own count t of steps does not advance.
* `sgd.clip_norm`, `adam.clip_value`: the stored gradients are those before clipping; each step first clips them, over
  both groups at once, to the norm or value `NAME.limit` (f32, one entry). `sgd.clip_norm.norms` (12) are the norms
  before clipping: some exceed the limit and some do not.

Clipping alone, `clip.*`: `NAME.a.grad`, `NAME.b.grad`, `NAME.a.clipped`, `NAME.b.clipped`; `NAME.params` is the limit,
`NAME.attrs` 0 for the norm and 1 for the value. By norm: `NAME.norm` (1) is the 2-norm over both groups, and the
gradients are multiplied by min(1, limit / (norm + 1e-6)), so that a clipped norm is a little less than the limit.
`clip.none` has only zeros.

Schedules, `schedule.*`: `NAME.rates` (40, 2) is the rate of each group in epoch (or step) e from 0 to 39, `NAME.base`
(2) the rate of each group without a schedule.

| schedule        | attrs (i64)           | params (f32)         | rate in epoch e                                |
|-----------------|-----------------------|----------------------|------------------------------------------------|
| step.*          | epochs per step s     | gamma                | base gamma^floor(e / s)                        |
| multi_step.*    | milestones            | gamma                | base gamma^(number of milestones <= e)         |
| warmup.*        | warm-up k, milestones | gamma, factor f      | that times (f (1 - e / k) + e / k) while e < k |
| cosine.*        | epochs t              | least rate           | least + (base - least) (1 + cos(pi e / t)) / 2 |
| warmup_cosine.* | epochs t, warm-up k   | least rate, factor f | see below                                      |

* A milestone that is named twice counts twice. Warm-up and milestones share the counter e, so that a milestone
  within the warm-up counts at once.
* The least rate of the cosine is the same for both groups. The tables end before e = t, beyond which PyTorch's rate
  would rise again.
* warmup_cosine: base (f (1 - e / k) + e / k) while e < k, then the cosine with e - k in place of e and t - k in place
  of t; at e = k the rate is the base rate.

Moving averages, `ema.*`: teacher = alpha teacher + (1 - alpha) student. `NAME.a.start` is the teacher before,
`NAME.a.student{i}` the student at update i and `NAME.a.after{i}` the teacher after it, i from 0 to 11; likewise for
`b`. `NAME.attrs` (12): the step of every update, `NAME.alphas` (12): its alpha, `NAME.params`: the limit.
`ramp*`: alpha = min(1 - 1 / (step + 1), limit), so that the teacher is the student after step 0, and after later ones
the mean of the students so far, until the limit is reached (within `ramp_late`). `constant`: alpha = limit.
"""

import math

import torch
from safetensors.torch import save_file
from torch.optim import lr_scheduler

torch.manual_seed(29)
torch.set_num_threads(1)
out = {}
cases = []
SHAPES = {"a": (3, 5), "b": (7,)}
STEPS = 12
EPOCHS = 40


def exact(x):
    # Rounded to f32, so that both sides start from the same numbers.
    return x.float().double()


def rand(*shape, scale=1.0):
    return exact(torch.randn(*shape) * scale)


def single(value):
    # The f32 nearest to a setting, as a double.
    return torch.tensor(value, dtype=torch.float32).item()


def begin(name, params, attrs):
    assert name not in cases, name
    cases.append(name)
    out[f"{name}.params"] = torch.tensor(params, dtype=torch.float32)
    out[f"{name}.attrs"] = torch.tensor(attrs, dtype=torch.int64)


def keep(name, value):
    out[name] = value.detach().float().clone()


RATES = (single(1e-2), single(1e-3))


# The size of the gradients, step by step.
SCALES = {
    "even": [0.3] * STEPS,
    "uneven": [1.0, 2.0, 0.8, 0.5, 0.3, 0.1, 0.05, 0.7, 0.1, 0.02, 1.5, 0.05],
    "shrinking": [1.0, 2.0, 1.5, 1.0, 0.7, 0.3, 0.1, 0.05, 0.3, 0.1, 0.02, 0.05],
}


def run(name, optim, params, clip=None, skip=False, kind="even"):
    for k, p in params.items():
        keep(f"{name}.{k}.start", p)
    norms = []
    for step, scale in enumerate(SCALES[kind]):
        for k, p in params.items():
            p.grad = rand(*SHAPES[k], scale=scale)
            if skip and step == 5 and k == "b":
                p.grad = None
                continue
            keep(f"{name}.{k}.grad{step}", p.grad)
        if clip is not None:
            norms.append(clip(list(params.values())))
        optim.step()
        for k, p in params.items():
            keep(f"{name}.{k}.after{step}", p)
    return norms


def start():
    return {k: torch.nn.Parameter(rand(*s)) for k, s in SHAPES.items()}


# SGD: (momentum, dampening, weight decay of a, nesterov, skip).
for name, (momentum, dampening, decay, nesterov, skip) in {
    "sgd.plain": (0.0, 0.0, 0.0, False, False),
    "sgd.decay": (0.0, 0.0, 5e-2, False, False),
    "sgd.momentum": (0.9, 0.0, 0.0, False, False),
    "sgd.momentum_decay": (0.9, 0.0, 5e-2, False, False),
    "sgd.nesterov": (0.9, 0.0, 0.0, True, False),
    "sgd.nesterov_decay": (0.8, 0.0, 5e-2, True, False),
    "sgd.dampening": (0.9, 0.5, 0.0, False, False),
    "sgd.dampening_decay": (0.7, 0.25, 5e-2, False, False),
    "sgd.skip": (0.9, 0.0, 5e-2, False, True),
}.items():
    momentum, dampening, decays = single(momentum), single(dampening), (single(decay), 0.0)
    params = start()
    optim = torch.optim.SGD(
        [{"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(params.values(), RATES, decays)],
        lr=RATES[0],
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
    )
    begin(name, [[r, momentum, dampening, d] for r, d in zip(RATES, decays)], [int(nesterov)])
    run(name, optim, params, skip=skip)


def adam(params, beta1, beta2, eps, decays, amsgrad, decoupled):
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    return make(
        [{"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(params.values(), RATES, decays)],
        betas=(beta1, beta2),
        eps=eps,
        amsgrad=amsgrad,
    )


# Adam: (beta1, beta2, eps, weight decay of a, amsgrad, decoupled, skip).
for name, (beta1, beta2, eps, decay, amsgrad, decoupled, skip) in {
    "adam.plain": (0.9, 0.999, 1e-8, 0.0, False, False, False),
    "adam.l2": (0.9, 0.999, 1e-8, 5e-2, False, False, False),
    "adam.betas": (0.5, 0.95, 1e-3, 5e-2, False, False, False),
    "adam.amsgrad": (0.9, 0.9, 1e-8, 5e-2, True, False, False),
    "adam.skip": (0.9, 0.999, 1e-8, 5e-2, False, False, True),
    "adamw.plain": (0.9, 0.999, 1e-8, 5e-2, False, True, False),
    "adamw.betas": (0.5, 0.95, 1e-3, 5e-1, False, True, False),
    "adamw.amsgrad": (0.9, 0.9, 1e-8, 5e-1, True, True, False),
    "adamw.skip": (0.9, 0.999, 1e-8, 5e-2, False, True, True),
}.items():
    beta1, beta2, eps, decays = single(beta1), single(beta2), single(eps), (single(decay), 0.0)
    params = start()
    optim = adam(params, beta1, beta2, eps, decays, amsgrad, decoupled)
    begin(name, [[r, beta1, beta2, eps, d] for r, d in zip(RATES, decays)], [int(amsgrad), int(decoupled)])
    run(name, optim, params, skip=skip, kind="shrinking" if amsgrad else "even")
    if amsgrad:
        for s in optim.state.values():
            assert (s["max_exp_avg_sq"] > 1.2 * s["exp_avg_sq"]).double().mean() > 0.9

# Clipping in a run: SGD with momentum by the norm, Adam by the value.
params, momentum, limit = start(), single(0.9), single(2.0)
optim = torch.optim.SGD([{"params": [p], "lr": r} for p, r in zip(params.values(), RATES)], momentum=momentum)
begin("sgd.clip_norm", [[r, momentum, 0.0, 0.0] for r in RATES], [0])
keep("sgd.clip_norm.limit", torch.tensor([limit]))
norms = run("sgd.clip_norm", optim, params, lambda p: torch.nn.utils.clip_grad_norm_(p, limit), kind="uneven")
norms = torch.stack(norms)
assert 3 <= (norms > limit).sum() <= STEPS - 3 and ((norms - limit).abs() > 0.05).all()
keep("sgd.clip_norm.norms", norms)

params, betas, eps, limit = start(), (single(0.9), single(0.999)), single(1e-8), single(0.25)
optim = adam(params, *betas, eps, (0.0, 0.0), False, False)
begin("adam.clip_value", [[r, *betas, eps, 0.0] for r in RATES], [0, 0])
keep("adam.clip_value.limit", torch.tensor([limit]))
run("adam.clip_value", optim, params, lambda p: torch.nn.utils.clip_grad_value_(p, limit), kind="uneven")

# Clipping alone: (scale of the gradients, limit, by value).
for name, (scale, limit, by_value) in {
    "norm_hit": (1.0, 1.5, False),
    "norm_missed": (0.1, 1.5, False),
    "norm_large": (1e4, 0.1, False),
    "none": (0.0, 1.0, False),
    "value": (1.0, 0.5, True),
    "value_missed": (0.01, 0.5, True),
}.items():
    name, limit = f"clip.{name}", single(limit)
    begin(name, [limit], [int(by_value)])
    params = start()
    for k, p in params.items():
        p.grad = rand(*SHAPES[k], scale=scale)
        keep(f"{name}.{k}.grad", p.grad)
    if by_value:
        torch.nn.utils.clip_grad_value_(params.values(), limit)
    else:
        keep(f"{name}.norm", torch.nn.utils.clip_grad_norm_(params.values(), limit).reshape(1))
    for k, p in params.items():
        keep(f"{name}.{k}.clipped", p.grad)


def table(name, make, formula, params, attrs):
    name = f"schedule.{name}"
    begin(name, params, attrs)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in RATES]
    optim = torch.optim.SGD(groups, lr=RATES[0])
    schedule = make(optim)
    rates = []
    for _ in range(EPOCHS):
        rates.append([g["lr"] for g in optim.param_groups])
        optim.step()
        schedule.step()
    rates = torch.tensor(rates, dtype=torch.float64)
    # The schedulers multiply up epoch by epoch; they agree with the formula above.
    stated = torch.tensor([[formula(e, r) for r in RATES] for e in range(EPOCHS)], dtype=torch.float64)
    torch.testing.assert_close(rates, stated, rtol=1e-12, atol=0.0)
    keep(f"{name}.rates", rates)
    keep(f"{name}.base", torch.tensor(RATES))


def passed(milestones, e):
    return sum(m <= e for m in milestones)


def ramp(e, k, f):
    return f * (1 - e / k) + e / k if e < k else 1.0


def cosine(e, t, base, least):
    return least + (base - least) * (1 + math.cos(math.pi * e / t)) / 2


for name, (size, gamma) in {"tenth": (20, 0.1), "half": (7, 0.5), "every": (1, 0.95)}.items():
    gamma = single(gamma)
    table(
        f"step.{name}",
        lambda o: lr_scheduler.StepLR(o, size, gamma),
        lambda e, r: r * gamma ** (e // size),
        [gamma],
        [size],
    )
for name, (milestones, gamma) in {
    "three": ([10, 20, 33], 0.1),
    "twice": ([15, 15, 30], 0.5),
    "first": ([1], 0.1),
}.items():
    gamma = single(gamma)
    table(
        f"multi_step.{name}",
        lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma),
        lambda e, r: r * gamma ** passed(milestones, e),
        [gamma],
        milestones,
    )
for name, (k, f, milestones, gamma) in {
    "ten": (10, 0.01, [20, 30], 0.1),
    "only": (10, 0.1, [], 0.1),
    "overlap": (12, 0.1, [5, 25], 0.5),
    "seven": (7, 0.001, [7, 17, 27], 0.3),
}.items():
    f, gamma = single(f), single(gamma)
    table(
        f"warmup.{name}",
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o, f, 1.0, k), lr_scheduler.MultiStepLR(o, milestones, gamma)]
        ),
        lambda e, r: r * ramp(e, k, f) * gamma ** passed(milestones, e),
        [gamma, f],
        [k, *milestones],
    )
for name, (t, least) in {"to_zero": (40, 0.0), "to_least": (40, 7e-5), "longer": (57, 0.0)}.items():
    least = single(least)
    table(
        f"cosine.{name}",
        lambda o: lr_scheduler.CosineAnnealingLR(o, t, least),
        lambda e, r: cosine(e, t, r, least),
        [least],
        [t],
    )
for name, (t, k, least, f) in {"ten": (40, 10, 7.7e-5, 0.1), "five": (40, 5, 0.0, 0.01)}.items():
    least, f = single(least), single(f)
    table(
        f"warmup_cosine.{name}",
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, f, 1.0, k), lr_scheduler.CosineAnnealingLR(o, t - k, least)],
            [k],
        ),
        lambda e, r: r * ramp(e, k, f) if e < k else cosine(e - k, t - k, r, least),
        [least, f],
        [t, k],
    )

LIMIT = single(0.999)
for name, (steps, ramped) in {
    "ramp": (range(STEPS), True),
    "ramp_late": (range(994, 994 + STEPS), True),
    "constant": (range(STEPS), False),
}.items():
    name = f"ema.{name}"
    begin(name, [LIMIT], [*steps])
    alphas = [min(1.0 - 1.0 / (step + 1), LIMIT) if ramped else LIMIT for step in steps]
    keep(f"{name}.alphas", torch.tensor(alphas, dtype=torch.float64))
    for k, s in SHAPES.items():
        teacher = rand(*s)
        keep(f"{name}.{k}.start", teacher)
        for i, alpha in enumerate(alphas):
            student = rand(*s)
            keep(f"{name}.{k}.student{i}", student)
            teacher = alpha * teacher + (1.0 - alpha) * student
            keep(f"{name}.{k}.after{i}", teacher)

save_file(out, "optim_more.safetensors", metadata={"cases": ",".join(cases)})
