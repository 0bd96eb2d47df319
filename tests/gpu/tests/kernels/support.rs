//! Memory with margins, launches in several orders of threads, comparisons.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Mutex;

use half::bf16;
use reid_gpu_emulator::{Emulator, kernels};
use reid_train::nn::gpu::{Arg, Driver, Launch, Precision, Settings};

/// Kernels that ran.
pub static EXERCISED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Number types of maps.
pub trait Real: Plain {
    const NAME: &'static str;
    /// Elements of 16 bytes.
    const WIDE: usize;
    /// Relative error of a result that is rounded once, and of a short sum in f32 before.
    const ROUNDING: f64;
    fn of(x: f64) -> Self;
    fn get(self) -> f64;
}
impl Real for f32 {
    const NAME: &'static str = "f32";
    const WIDE: usize = 4;
    const ROUNDING: f64 = 2e-6;
    fn of(x: f64) -> Self {
        x as f32
    }
    fn get(self) -> f64 {
        f64::from(self)
    }
}
impl Real for bf16 {
    const NAME: &'static str = "bf16";
    const WIDE: usize = 8;
    const ROUNDING: f64 = 1.0 / 256.0;
    fn of(x: f64) -> Self {
        bf16::from_f64(x)
    }
    fn get(self) -> f64 {
        self.to_f64()
    }
}

/// Types any bits are a value of.
pub trait Plain: Copy + 'static {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for bf16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for u64 {}

#[derive(Clone, Copy, PartialEq)]
#[repr(align(16))]
struct Line([u8; 16]);

/// All bits set: NaN for every type of floating point, and no valid position.
const POISON: Line = Line([0xff; 16]);
/// Lines before and behind the content.
const MARGIN: usize = 16;

/// Memory of a launch: what lies beside it is NaN, and has to stay so. Aligned to 16 bytes.
pub struct Memory<T> {
    lines: UnsafeCell<Vec<Line>>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Memory<T> {
    /// NaN all over: a result that is not written shows.
    pub fn new(len: usize) -> Self {
        let lines = (len * size_of::<T>()).div_ceil(16) + 2 * MARGIN;
        Memory {
            lines: UnsafeCell::new(vec![POISON; lines]),
            len,
            of: PhantomData,
        }
    }

    pub fn from(values: &[T]) -> Self {
        let memory = Self::new(values.len());
        // SAFETY: as many elements as there is room for.
        unsafe { memory.start().copy_from(values.as_ptr(), values.len()) };
        memory
    }

    fn start(&self) -> *mut T {
        // SAFETY: the margin lies within the allocation; tests use their memory in one thread at a time.
        unsafe { (*self.lines.get()).as_mut_ptr().add(MARGIN).cast() }
    }

    pub fn get(&self) -> Vec<T> {
        // SAFETY: `len` elements lie there, and any bits are a value.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }.to_vec()
    }
}

impl<T: Real> Memory<T> {
    pub fn reals(&self) -> Vec<f64> {
        self.get().into_iter().map(T::get).collect()
    }
}

/// What a launch needs to know of memory.
pub trait Region {
    fn address(&self) -> u64;
    fn lines(&self) -> Vec<[u8; 16]>;
    fn restore(&self, lines: &[[u8; 16]]);
    fn check_margins(&self, kernel: &str);
}

impl<T: Plain> Region for Memory<T> {
    fn address(&self) -> u64 {
        self.start() as u64
    }
    fn lines(&self) -> Vec<[u8; 16]> {
        // SAFETY: no launch is running.
        unsafe { &*self.lines.get() }.iter().map(|l| l.0).collect()
    }
    fn restore(&self, lines: &[[u8; 16]]) {
        // SAFETY: no launch is running.
        let own = unsafe { &mut *self.lines.get() };
        for (own, line) in own.iter_mut().zip(lines) {
            own.0 = *line;
        }
    }
    fn check_margins(&self, kernel: &str) {
        let lines = self.lines();
        let bytes: Vec<u8> = lines.concat();
        let content = MARGIN * 16..MARGIN * 16 + self.len * size_of::<T>();
        for (at, byte) in bytes.iter().enumerate() {
            assert!(
                content.contains(&at) || *byte == 0xff,
                "{kernel} wrote {} bytes beside memory of {} bytes",
                at as i64 - content.start as i64,
                content.len()
            );
        }
    }
}

/// An argument.
#[derive(Clone, Copy)]
pub enum A<'a> {
    M(&'a dyn Region),
    /// So many bytes behind the start.
    At(&'a dyn Region, u64),
    Null,
    I(i32),
    L(i64),
    F(f32),
    D(f64),
}
pub use A::{At, D, F, I, L, M, Null};

/// Memory or null.
pub fn maybe<T: Plain>(memory: Option<&Memory<T>>) -> A<'_> {
    memory.map_or(Null, |m| M(m))
}

pub fn emulator() -> Emulator {
    Emulator::new(Settings {
        precision: Precision::F32,
        deterministic: true,
    })
}

/// Runs once in the given order of threads.
pub fn run_once(kernel: &str, grid: [u32; 3], args: &[A], order: u32) -> candle_core::Result<()> {
    let module: &'static str = match kernels().get(kernel).map(|k| k.module.as_str()) {
        Some("elementwise") => "elementwise",
        Some("norm") => "norm",
        Some("rows") => "rows",
        Some("pool") => "pool",
        Some("conv") => "conv",
        Some("update") => "update",
        Some("select") => "select",
        Some("faults") => "faults",
        other => panic!("{kernel} is in {other:?}"),
    };
    EXERCISED
        .lock()
        .expect("no test panics while it holds this")
        .insert(kernel.to_owned());
    let args: Vec<Arg> = args
        .iter()
        .map(|a| match *a {
            M(m) => Arg::Pointer(m.address()),
            At(m, offset) => Arg::Pointer(m.address() + offset),
            Null => Arg::Pointer(0),
            I(v) => Arg::I32(v),
            L(v) => Arg::I64(v),
            F(v) => Arg::F32(v),
            D(v) => Arg::F64(v),
        })
        .collect();
    let emulator = emulator();
    emulator.set_order(order);
    let launch = Launch {
        module,
        kernel,
        grid,
        block: 256,
        args: &args,
    };
    // SAFETY: every argument is of its kernel's type, or the launch is refused; memory lives until it returns.
    unsafe { emulator.launch(&launch) }
}

/// Runs with each of the grids and three orders of threads each time: the same bits in all memory, margins untouched. `also`
/// is memory the kernel reaches without its being an argument.
pub fn launch_with(kernel: &str, grids: &[[u32; 3]], args: &[A], also: &[&dyn Region]) {
    let mut memory: Vec<&dyn Region> = also.to_vec();
    for arg in args {
        if let M(m) | At(m, _) = arg {
            memory.push(*m);
        }
    }
    let contents = || -> Vec<Vec<[u8; 16]>> { memory.iter().map(|m| m.lines()).collect() };
    let before = contents();
    let mut first = None;
    for grid in grids {
        for order in [0, 1, 12345] {
            for (m, lines) in memory.iter().zip(&before) {
                m.restore(lines);
            }
            run_once(kernel, *grid, args, order).expect("a launch without mistakes");
            memory.iter().for_each(|m| m.check_margins(kernel));
            let after = contents();
            let first = first.get_or_insert_with(|| after.clone());
            assert!(
                *first == after,
                "{kernel}: grid {grid:?} and order {order} give other bits"
            );
        }
    }
}

/// [`launch_with`] one grid.
pub fn launch(kernel: &str, grid: [u32; 3], args: &[A]) {
    launch_with(kernel, &[grid], args, &[]);
}

/// [`launch_with`] one-dimensional grids of several sizes.
pub fn launch_any(kernel: &str, args: &[A]) {
    launch_with(kernel, &[[1, 1, 1], [3, 1, 1], [11, 1, 1]], args, &[]);
}

/// A number in -1..1 that looks random.
pub fn noise(seed: u64, at: usize) -> f64 {
    let mut x = (seed << 32) ^ at as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..3 {
        x ^= x >> 31;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    (x >> 40) as f64 / f64::from(1u32 << 23) - 1.0
}

pub fn random<T: Real>(seed: u64, len: usize) -> Vec<T> {
    (0..len).map(|i| T::of(noise(seed, i))).collect()
}

pub fn reals<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.get()).collect()
}

/// Every element within `relative` of its own size plus `absolute`; what is not finite has to be the same.
pub fn close(what: &str, got: &[f64], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = if w.is_finite() {
            (g - w).abs() <= relative * w.abs() + absolute
        } else {
            g == w || (g.is_nan() && w.is_nan())
        };
        assert!(same, "{what}: element {i} is {g}, not {w}");
    }
}

/// Vector widths of a type, and the ending of the kernel's name.
pub fn variants<T: Real>() -> [(usize, String); 2] {
    [1, T::WIDE].map(|v| (v, format!("{}_{v}", T::NAME)))
}
