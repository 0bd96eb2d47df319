//! From candle tensors to slices and back.

use std::cell::Cell;
use std::ops::Deref;

use candle_core::{
    CpuStorage, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, Tensor, WithDType, bail,
};

/// A read guard on a contiguous tensor's elements.
pub(super) struct View<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

/// Borrows the elements of a contiguous f32 tensor on the CPU.
pub(super) fn view(t: &Tensor) -> Result<View<'_>> {
    let (storage, layout) = t.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!(
            "a kernel takes contiguous tensors, got strides {:?} of shape {:?}",
            layout.stride(),
            layout.shape()
        );
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(View {
            storage,
            start,
            end,
        }),
        _ => bail!(
            "a CPU kernel takes f32 tensors on the CPU, got {:?} on {:?}",
            t.dtype(),
            t.device().location()
        ),
    }
}

/// As [`view`], if there is a tensor.
pub(super) fn view_opt(t: Option<&Tensor>) -> Result<Option<View<'_>>> {
    t.map(view).transpose()
}

impl Deref for View<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(v)) => &v[self.start..self.end],
            _ => unreachable!("checked when the view was made"),
        }
    }
}

/// Runs `f` on a copy-free view of u32 elements.
pub(super) fn with_u32<R>(t: &Tensor, f: impl FnOnce(&[u32]) -> R) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::U32(v)), Some((a, b))) => Ok(f(&v[a..b])),
        _ => bail!("expected contiguous u32 positions on the CPU"),
    }
}

/// Runs `f` on the elements of a contiguous f32 tensor, to be changed in place.
///
/// The caller sees to it that nobody else relies on the old values.
pub(crate) fn edit(t: &Tensor, f: impl FnOnce(&mut [f32])) -> Result<()> {
    try_edit(t, |x| {
        f(x);
        Ok(())
    })
}

/// As [`edit`], for what can fail.
pub(super) fn try_edit(t: &Tensor, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    struct Edit<F>(Cell<Option<F>>);
    impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Edit<F> {
        fn name(&self) -> &'static str {
            "edit"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let Some((a, b)) = layout.contiguous_offsets() else {
                bail!("only contiguous tensors can be changed in place");
            };
            let CpuStorage::F32(v) = storage else {
                bail!("only f32 tensors can be changed in place");
            };
            match self.0.take() {
                Some(f) => f(&mut v[a..b]),
                None => Ok(()),
            }
        }
    }
    t.inplace_op1(&Edit(Cell::new(Some(f))))
}

/// A tensor that owns `data`.
pub(super) fn tensor<T: WithDType>(data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &candle_core::Device::Cpu)
}

/// Memory that is about to be written in full: filling it with zeros first would cost a pass over it.
///
/// Callers write every element before any is read.
#[allow(clippy::uninit_vec)]
pub(super) fn uninit(len: usize) -> Vec<f32> {
    let mut v = Vec::with_capacity(len);
    // SAFETY: the capacity is there, and every bit pattern is an f32; the contract above forbids reading early.
    unsafe { v.set_len(len) };
    v
}

/// A pointer that tasks writing disjoint parts of one buffer share.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);
// SAFETY: every user writes a part of its own; see `Shared::part`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Shares a buffer among tasks for as long as the caller keeps it borrowed.
    pub(super) fn new(data: &mut [f32]) -> Self {
        Shared(data.as_mut_ptr())
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// The part lies inside the buffer, and no other task touches it at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: by contract of this function.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// The address of an element.
    pub(super) fn at(self, start: usize) -> *mut f32 {
        self.0.wrapping_add(start)
    }
}
