//! Every kernel of `train/cuda` against an obvious loop over its formula.

mod conv;
mod elementwise;
mod norm;
mod pool;
mod rows;
mod select;
mod support;
mod update;

use candle_core::{DType, Device, Tensor};
use half::bf16;
use reid_gpu_emulator::kernels;
use reid_train::nn::gpu::{Arg, Driver, Launch, Matrix, Product};
use support::*;

/// Makes a test of each of the functions, and a list of them all.
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(
            mod $name {
                #[test]
                fn test() {
                    super::$module::$name();
                }
            }
        )*
        const ALL: &[fn()] = &[$($module::$name),*];
    };
}
tests! {
    elementwise::affine,
    elementwise::affine_passes_nan_through,
    elementwise::add,
    elementwise::relu_backward,
    elementwise::leaky_relu,
    elementwise::transpose,
    elementwise::column_sums,
    elementwise::bf16_is_rounded_to_even,
    norm::moments,
    norm::moments_of_a_large_mean,
    norm::moments_end,
    norm::sums,
    norm::sums_end,
    norm::combine,
    norm::fold_and_running,
    rows::layer_norm,
    rows::layer_norm_backward,
    rows::l2_normalize,
    pool::max_pool,
    pool::windows,
    pool::global_pool,
    pool::sum_doubles,
    conv::filters,
    conv::columns,
    update::clipping,
    update::adam,
    update::sgd,
    update::ema,
    select::top_k,
    select::squared_distances,
}

/// A new kernel needs a test.
#[test]
fn every_kernel_is_tested() {
    for test in ALL {
        test();
    }
    let exercised = EXERCISED.lock().unwrap();
    let mut missing: Vec<&str> = kernels()
        .values()
        .filter(|k| k.module != "faults" && !exercised.contains(&k.name))
        .map(|k| k.name.as_str())
        .collect();
    missing.sort_unstable();
    assert!(missing.is_empty(), "no test runs {missing:?}");
}

/// What the emulator says of a kernel with a mistake.
fn fault(kernel: &str, args: &[A]) -> String {
    let error = run_once(kernel, [2, 1, 1], args, 0).expect_err("a mistake nobody saw");
    error.to_string()
}

#[test]
fn barriers_that_not_all_threads_reach_are_errors() {
    let out = Memory::<i32>::new(512);
    for kernel in ["fault_ended", "fault_divergent", "fault_half_warp"] {
        let error = fault(kernel, &[M(&out)]);
        assert!(
            error.contains(kernel) && error.contains("never reach"),
            "{error}"
        );
    }
    // The emulator works as before.
    elementwise::column_sums();
}

#[test]
fn a_missing_barrier_depends_on_the_order_of_threads() {
    let out = Memory::<i32>::new(512);
    let results = [0, 1, 3].map(|order| {
        run_once("fault_race", [2, 1, 1], &[M(&out)], order).unwrap();
        out.get()
    });
    assert!(results[0] != results[1] && results[1] != results[2] && results[0] != results[2]);
}

#[test]
fn misaligned_vectors_and_indices_out_of_bounds_are_errors() {
    let (x, out) = (Memory::<f32>::new(8), Memory::<f32>::new(4));
    let error = fault("fault_misaligned", &[At(&x, 4), M(&out)]);
    assert!(
        error.contains("fault_misaligned") && error.contains("not aligned"),
        "{error}"
    );
    let error = fault("fault_misaligned", &[Null, M(&out)]);
    assert!(error.contains("null"), "{error}");
    let error = fault("fault_bounds", &[M(&out)]);
    assert!(error.contains("index 8 outside of an array"), "{error}");
}

#[test]
fn arguments_and_grids_are_checked() {
    let out = Memory::<f32>::new(4);
    for args in [
        vec![M(&out), M(&out), M(&out), I(4), I(0)],
        vec![M(&out), M(&out), M(&out), L(4)],
        vec![M(&out), M(&out), F(0.0), L(4), I(0)],
    ] {
        let error = fault("add_f32_1", &args);
        assert!(error.contains("add_f32_1: arguments"), "{error}");
    }
    let emulator = emulator();
    let args = [Arg::Pointer(out.address()); 3];
    let args = [&args[..], &[Arg::I64(4), Arg::I32(0)]].concat();
    let right = Launch {
        module: "elementwise",
        kernel: "add_f32_1",
        grid: [1, 1, 1],
        block: 256,
        args: &args,
    };
    let wrong = [
        Launch {
            kernel: "no_such_kernel",
            ..right.clone()
        },
        Launch {
            module: "norm",
            ..right.clone()
        },
        Launch {
            grid: [0, 1, 1],
            ..right.clone()
        },
        Launch {
            grid: [1, 70_000, 1],
            ..right.clone()
        },
        Launch {
            block: 512,
            ..right.clone()
        },
    ];
    for launch in &wrong {
        // SAFETY: none of them runs.
        assert!(unsafe { emulator.launch(launch) }.is_err(), "{launch:?}");
    }
    // SAFETY: three times the same four numbers.
    unsafe { emulator.launch(&right) }.unwrap();
}

#[test]
fn addresses_are_those_of_contiguous_tensors() {
    let emulator = emulator();
    let x = Tensor::arange(0f32, 12f32, &Device::Cpu)
        .unwrap()
        .reshape((3, 4))
        .unwrap();
    let start = emulator.address(&x).unwrap();
    assert_eq!(
        emulator.address(&x.narrow(0, 1, 2).unwrap()).unwrap(),
        start + 16
    );
    assert!(emulator.address(&x.t().unwrap()).is_err());
    for dtype in [DType::BF16, DType::F64, DType::U32, DType::U8] {
        assert_ne!(emulator.address(&x.to_dtype(dtype).unwrap()).unwrap(), 0);
    }
}

fn product_of<T: Real, C: Real>(dtypes: [DType; 2]) {
    let emulator = emulator();
    let (m, n, k) = (5, 7, 19);
    for options in 0..8 {
        let [ta, tb, accumulate] = [1, 2, 4].map(|bit| options & bit != 0);
        // Rows are longer than what is used of them.
        let (rows_a, cols_a) = if ta { (k, m) } else { (m, k) };
        let (rows_b, cols_b) = if tb { (n, k) } else { (k, n) };
        let strides = [cols_a + 3, cols_b + 1, n + 2];
        let a: Vec<T> = random(1, rows_a * strides[0]);
        let b: Vec<T> = random(2, rows_b * strides[1]);
        let c: Vec<C> = random(3, m * strides[2]);
        let (ma, mb, mc) = (Memory::from(&a), Memory::from(&b), Memory::from(&c));
        let matrix = |address: u64, dtype: DType, stride: usize, transposed: bool| Matrix {
            address,
            dtype,
            stride,
            transposed,
        };
        let product = Product {
            m,
            n,
            k,
            a: matrix(ma.address(), dtypes[0], strides[0], ta),
            b: matrix(mb.address(), dtypes[0], strides[1], tb),
            c: matrix(mc.address(), dtypes[1], strides[2], false),
            accumulate,
            exact: false,
        };
        // SAFETY: the matrices lie in these three.
        unsafe { emulator.product(&product) }.expect("a product of known types");
        let mut want = reals(&c);
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|l| {
                        let a = if ta {
                            a[l * strides[0] + i]
                        } else {
                            a[i * strides[0] + l]
                        };
                        let b = if tb {
                            b[j * strides[1] + l]
                        } else {
                            b[l * strides[1] + j]
                        };
                        a.get() * b.get()
                    })
                    .sum();
                let at = i * strides[2] + j;
                want[at] = sum + if accumulate { want[at] } else { 0.0 };
            }
        }
        close("product", &mc.reals(), &want, C::ROUNDING, 1e-5);
    }
}

#[test]
fn products_are_right_for_all_layouts() {
    product_of::<f32, f32>([DType::F32, DType::F32]);
    product_of::<bf16, bf16>([DType::BF16, DType::BF16]);
    product_of::<bf16, f32>([DType::BF16, DType::F32]);
}
