//! What only a GPU can show: products, cuDNN's convolutions, copies beside computation. Needs the feature `cuda` and, to run, a
//! driver; `cargo test --release --features reid-train/cuda,reid-train/cudnn -p reid-train --test cuda -- --nocapture`.
#![cfg(feature = "cuda")]

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use reid_train::nn::cpu::Cpu;
use reid_train::nn::gpu::cuda::{Cuda, count};
use reid_train::nn::gpu::upload::Uploader;
use reid_train::nn::gpu::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Precision, Product, Settings,
};
use reid_train::nn::kernels::{ConvShape, Epilogue, InputGrad, Kernels};

fn settings(precision: Precision, deterministic: bool) -> Settings {
    Settings {
        precision,
        deterministic,
    }
}

fn open() -> Option<Arc<Cuda>> {
    if count() == 0 {
        eprintln!("skipped: no GPU");
        return None;
    }
    let cuda = Cuda::open(0, settings(Precision::F32, false)).expect("a GPU that opens");
    Some(Arc::new(cuda))
}

/// Numbers without a pattern, in -1..1.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn host(t: &Tensor) -> Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Largest difference as a share of the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-6_f32, |m, v| m.max(v.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    worst.fold(0.0_f32, |m, d| if d.is_nan() { d } else { m.max(d) }) / scale
}

#[test]
fn products_in_every_form() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let (m, n, k) = (37, 21, 53);
    let forms = [
        (Precision::F32, DType::F32, DType::F32, 2e-6),
        (Precision::Tf32, DType::F32, DType::F32, 5e-3),
        (Precision::Bf16, DType::F32, DType::F32, 2e-6),
        (Precision::Bf16, DType::BF16, DType::BF16, 2e-2),
        (Precision::Bf16, DType::BF16, DType::F32, 1e-5),
    ];
    for (precision, dtype, out, tolerance) in forms {
        gpu.set_settings(settings(precision, true))?;
        for form in 0..16 {
            let (ta, tb, accumulate, empty) =
                (form & 1 != 0, form & 2 != 0, form & 4 != 0, form & 8 != 0);
            let k = if empty { 0 } else { k };
            // Rows longer than the matrix, as parts of a larger one have.
            let stored = |rows: usize, columns: usize, t: bool| {
                if t { (columns, rows) } else { (rows, columns) }
            };
            let make = |(rows, columns): (usize, usize), dtype: DType, seed: u64| {
                let stride = columns + 3;
                let shape = (rows.max(1), stride);
                Tensor::from_vec(noise(shape.0 * stride, seed), shape, gpu.device())?
                    .to_dtype(dtype)
            };
            let (sa, sb) = (stored(m, k, ta), stored(k, n, tb));
            let (a, b, c) = (
                make(sa, dtype, 1)?,
                make(sb, dtype, 2)?,
                make((m, n), out, 3)?,
            );
            let (ha, hb, before) = (host(&a)?, host(&b)?, host(&c)?);
            let at = |t: &Tensor, transposed: bool| -> Result<Matrix> {
                Ok(Matrix {
                    address: gpu.address(t)?,
                    dtype: t.dtype(),
                    stride: t.dim(1)?,
                    transposed,
                })
            };
            let product = Product {
                m,
                n,
                k,
                a: at(&a, ta)?,
                b: at(&b, tb)?,
                c: at(&c, false)?,
                accumulate,
                exact: false,
            };
            unsafe { gpu.product(&product)? };
            let mut expected = before.clone();
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k)
                        .map(|l| {
                            let x = if ta {
                                ha[l * (m + 3) + i]
                            } else {
                                ha[i * (k + 3) + l]
                            };
                            let y = if tb {
                                hb[j * (k + 3) + l]
                            } else {
                                hb[l * (n + 3) + j]
                            };
                            f64::from(x) * f64::from(y)
                        })
                        .sum();
                    let cell = &mut expected[i * (n + 3) + j];
                    *cell = sum as f32 + if accumulate { *cell } else { 0.0 };
                }
            }
            let d = distance(&host(&c)?, &expected);
            assert!(d <= tolerance, "{precision:?} {product:?}: {d}");
        }
    }
    Ok(())
}

/// (N, H, W, C) on the host and everything else a convolution needs.
fn shape(n: usize, c: usize, hw: usize, o: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape {
        n,
        c,
        h: hw,
        w: hw / 2,
        o,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

#[cfg(feature = "cudnn")]
#[test]
fn convolutions_equal_the_processors() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let mut dilated = shape(2, 16, 18, 24, 3, 1);
    (dilated.dilation, dilated.padding) = ([2; 2], [2; 2]);
    let mut grouped = shape(2, 32, 16, 32, 3, 1);
    grouped.groups = 4;
    let mut depthwise = shape(2, 32, 16, 32, 3, 1);
    depthwise.groups = 32;
    let shapes = [
        shape(3, 3, 64, 16, 7, 2),
        shape(2, 16, 32, 32, 3, 1),
        shape(2, 16, 32, 32, 3, 2),
        shape(2, 24, 16, 40, 1, 2),
        dilated,
        grouped,
        depthwise,
    ];
    let modes = [
        (Precision::F32, DType::F32, 1e-5),
        (Precision::Tf32, DType::F32, 5e-3),
        (Precision::Bf16, DType::BF16, 2e-2),
    ];
    for s in shapes {
        for (precision, dtype, tolerance) in modes {
            for deterministic in [false, true] {
                gpu.set_settings(settings(precision, deterministic))?;
                compare(&gpu, &s, dtype, tolerance, &format!("{precision:?} {s:?}"))?;
            }
        }
    }
    Ok(())
}

#[cfg(feature = "cudnn")]
fn compare(gpu: &Cuda, s: &ConvShape, dtype: DType, tolerance: f32, what: &str) -> Result<()> {
    let [oh, ow] = s.out();
    let per_group = s.c / s.groups;
    let [kh, kw] = s.kernel;
    let cpu = |shape: Vec<usize>, seed: u64| {
        let len = shape.iter().product();
        // Rounded as the GPU gets it, so that only the arithmetic differs.
        Tensor::from_vec(noise(len, seed), shape, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_dtype(DType::F32)
    };
    let x = cpu(vec![s.n, s.h, s.w, s.c], 1)?;
    let w = cpu(vec![s.o, per_group, kh, kw], 2)?;
    let dy = cpu(vec![s.n, oh, ow, s.o], 3)?;
    let held = cpu(vec![s.n, s.h, s.w, s.c], 4)?;
    let y = Cpu.conv2d(s, &x, &w, Epilogue::default())?;
    let grads = Cpu.conv2d_backward(s, &x, &w, &dy, InputGrad::New, [true, false])?;
    let (dx, dw) = (grads.dx.expect("asked for"), grads.dw.expect("asked for"));

    let there = |t: &Tensor| t.to_dtype(dtype)?.to_device(gpu.device());
    // (O, C / groups, kh, kw) as (O, kh, kw, C / groups).
    let packed = |t: &Tensor| t.permute((0, 2, 3, 1))?.contiguous();
    let (gx, gw, gdy) = (there(&x)?, there(&packed(&w)?)?, there(&dy)?);
    let (gy, gdw) = (there(&y.zeros_like()?)?, there(&packed(&w)?.zeros_like()?)?);
    let (gdx, added) = (there(&x.zeros_like()?)?, there(&held)?);
    let run = |pass: ConvPass, x: &Tensor, w: &Tensor, y: &Tensor| {
        let at = ConvAddresses {
            x: gpu.address(x)?,
            w: gpu.address(w)?,
            y: gpu.address(y)?,
        };
        let taken = unsafe { gpu.convolution(pass, s, dtype, at)? };
        if !taken {
            eprintln!("cuDNN does not take {pass:?} of {what}");
            assert!(s.groups > 1, "cuDNN does not take {pass:?} of {what}");
        }
        Ok::<bool, candle_core::Error>(taken)
    };
    let check = |name: &str, result: &Tensor, expected: &Tensor| {
        let d = distance(&host(result)?, &host(expected)?);
        assert!(d <= tolerance, "{name} of {what}: {d}");
        Ok::<(), candle_core::Error>(())
    };
    if run(ConvPass::Forward, &gx, &gw, &gy)? {
        check("result", &gy, &y)?;
    }
    if run(ConvPass::InputGrad { accumulate: false }, &gdx, &gw, &gdy)? {
        check("input gradient", &gdx, &dx)?;
    }
    if run(ConvPass::InputGrad { accumulate: true }, &added, &gw, &gdy)? {
        check("added input gradient", &added, &(&dx + &held)?)?;
    }
    if run(ConvPass::FilterGrad, &gx, &gdw, &gdy)? {
        check("filter gradient", &gdw, &packed(&dw)?)?;
    }
    Ok(())
}

#[test]
fn uploads_arrive_whole_while_the_device_computes() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let mut uploader = Uploader::new(gpu.clone())?;
    let busy = Tensor::from_vec(noise(2048 * 2048, 9), (2048, 2048), gpu.device())?;
    let mut arrived = Vec::new();
    for i in 0..12_u64 {
        // Sizes that make a slot grow, shrink and stay.
        let len = [1 << 20, 3 << 20, 1000][i as usize % 3] + i as usize;
        let sent = noise(len, i + 1);
        let work = busy.matmul(&busy)?;
        let t = uploader.upload(&sent, &[len])?;
        arrived.push((sent, (&t * 2.0)?, work));
    }
    drop(uploader);
    for (sent, doubled, _) in arrived {
        let expected: Vec<f32> = sent.iter().map(|v| v * 2.0).collect();
        assert_eq!(host(&doubled)?, expected);
    }
    Ok(())
}

#[test]
fn arguments_reach_a_kernel_and_errors_name_it() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let (free, total) = gpu.memory()?;
    assert!(free > 0 && free <= total);
    // A part of a tensor: the address has to start where the part does.
    let whole = Tensor::from_vec(noise(1000, 5), (10, 100), gpu.device())?;
    let part = whole.narrow(0, 3, 4)?;
    let y = Tensor::zeros((4, 100), DType::F32, gpu.device())?;
    let args = [
        Arg::Pointer(gpu.address(&part)?),
        Arg::Pointer(gpu.address(&y)?),
        Arg::F32(0.25),
        Arg::I64(400),
    ];
    let mut launch = Launch {
        module: "elementwise",
        kernel: "leaky_relu_f32",
        grid: [2, 1, 1],
        block: 256,
        args: &args,
    };
    unsafe { gpu.launch(&launch)? };
    let expected = Cpu.leaky_relu(&part.to_device(&Device::Cpu)?, 0.25)?;
    assert_eq!(host(&y)?, host(&expected)?);
    launch.kernel = "no_such_kernel";
    let error = unsafe { gpu.launch(&launch) }
        .expect_err("no such kernel")
        .to_string();
    assert!(error.contains("elementwise::no_such_kernel"), "{error}");
    assert!(Cuda::open(10_000, settings(Precision::F32, false)).is_err());
    Ok(())
}
