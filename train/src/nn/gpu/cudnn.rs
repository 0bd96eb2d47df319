//! Convolutions by cuDNN: maps (N, H, W, C), filters (O, kh, kw, C / groups).
//!
//! The functions that take an algorithm, not graphs: every cuDNN since 7 has them, and the search for the fastest algorithm is
//! one call. cudarc's wrappers know one type for all and no search, so its raw functions are called here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::result::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnMathType_t as Math, cudnnStatus_t as Status,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Error, Result};

mod algorithms;
mod descriptors;

use algorithms::{data, filter, forward};
use descriptors::{Descriptors, Handle};

use super::cuda::refused;
use super::driver::{ConvAddresses, ConvPass, Precision, Settings};
use crate::nn::kernels::ConvShape;

/// Most that an algorithm may take as workspace.
const WORKSPACE: usize = 1 << 30;
/// More than there are algorithms, each with and without tensor cores.
const RESULTS: usize = 32;

/// cuDNN on one stream.
pub(super) struct Cudnn {
    // Before the stream, which cuDNN's handle refers to.
    state: Mutex<State>,
    stream: Arc<CudaStream>,
}

struct State {
    // Before the handle, so that descriptors go first.
    plans: HashMap<Key, Option<Plan>>,
    handle: Handle,
    /// As large as the largest plan used so far wants it.
    workspace: Option<CudaSlice<u8>>,
}

/// Everything a plan depends on: pass, type, multiplication, determinism, and the numbers of the shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    bf16: bool,
    tf32: bool,
    deterministic: bool,
    numbers: [usize; 14],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Forward,
    InputGrad,
    FilterGrad,
}

/// How one pass over one shape is computed.
struct Plan {
    about: Descriptors,
    /// Number of the algorithm in the enumeration of its pass.
    algorithm: u32,
    /// Bytes.
    workspace: usize,
    /// Whether adding to the result has been refused.
    only_overwrites: bool,
}

/// What a search says about an algorithm: the layout of cuDNN's three structures, with plain numbers where they have
/// enumerations, so that a number unknown to these bindings is no undefined behaviour.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Found {
    algorithm: u32,
    status: u32,
    time: f32,
    memory: usize,
    determinism: u32,
    math: u32,
    reserved: [c_int; 3],
}

const _: () = {
    assert!(size_of::<Found>() == size_of::<sys::cudnnConvolutionFwdAlgoPerf_t>());
    assert!(size_of::<Found>() == size_of::<sys::cudnnConvolutionBwdDataAlgoPerf_t>());
    assert!(size_of::<Found>() == size_of::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>());
};

impl Drop for Cudnn {
    fn drop(&mut self) {
        // cuDNN's objects are given back in the context that they were made in, whichever thread this is.
        let context = self.stream.context();
        context.record_err(context.bind_to_thread());
    }
}

impl Cudnn {
    /// cuDNN for what runs on this stream.
    pub(super) fn open(stream: Arc<CudaStream>) -> Result<Self> {
        stream
            .context()
            .bind_to_thread()
            .map_err(|e| refused("starting cuDNN", e))?;
        let handle = Handle::new(&stream).map_err(|e| {
            Error::Msg(format!(
                "cuDNN could not start ({e}): the libcudnn*.so.9 files must be of one version, made for the CUDA libraries in \
                 use, and all in LD_LIBRARY_PATH"
            ))
        })?;
        Ok(Self {
            state: Mutex::new(State {
                plans: HashMap::new(),
                handle,
                workspace: None,
            }),
            stream,
        })
    }

    /// Starts a convolution; `false` if cuDNN has no algorithm for it, and nothing was done.
    ///
    /// # Safety
    /// The tensors lie where the addresses say.
    pub(super) unsafe fn convolution(
        &self,
        pass: ConvPass,
        shape: &ConvShape,
        dtype: DType,
        at: ConvAddresses,
        settings: Settings,
    ) -> Result<bool> {
        let bf16 = match dtype {
            DType::F32 => false,
            DType::BF16 => true,
            _ => return Ok(false),
        };
        let (kind, accumulate) = match pass {
            ConvPass::Forward => (Kind::Forward, false),
            ConvPass::InputGrad { accumulate } => (Kind::InputGrad, accumulate),
            ConvPass::FilterGrad => (Kind::FilterGrad, false),
        };
        let s = shape;
        let key = Key {
            kind,
            bf16,
            tf32: !bf16 && settings.precision == Precision::Tf32,
            deterministic: settings.deterministic,
            numbers: [
                s.n,
                s.c,
                s.h,
                s.w,
                s.o,
                s.kernel[0],
                s.kernel[1],
                s.stride[0],
                s.stride[1],
                s.padding[0],
                s.padding[1],
                s.dilation[0],
                s.dilation[1],
                s.groups,
            ],
        };
        self.stream
            .context()
            .bind_to_thread()
            .map_err(|e| refused("a convolution", e))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            plans,
            handle,
            workspace,
        } = &mut *state;
        if let Entry::Vacant(place) = plans.entry(key) {
            place.insert(self.plan(handle, key, shape)?);
        }
        let Some(plan) = plans.get_mut(&key).and_then(Option::as_mut) else {
            return Ok(false);
        };
        if accumulate && plan.only_overwrites {
            return Ok(false);
        }
        let room = self.room(workspace, plan.workspace)?;
        // SAFETY: the caller answers for the tensors, `room` for the workspace.
        let done = unsafe { plan.run(handle, kind, at, accumulate, room) };
        match done {
            Ok(()) => Ok(true),
            Err(e) if unsupported(e) => {
                tracing::warn!("cuDNN takes back its {kind:?} algorithm for {shape:?}: {e}");
                if accumulate {
                    plan.only_overwrites = true;
                } else {
                    plans.insert(key, None);
                }
                Ok(false)
            }
            Err(e) => Err(Error::Msg(format!("cuDNN: {kind:?} of {shape:?}: {e}"))),
        }
    }

    /// The workspace, at least this large.
    fn room(&self, workspace: &mut Option<CudaSlice<u8>>, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        if workspace.as_ref().is_none_or(|w| w.len() < bytes) {
            // Freed in the stream's order: after what still uses it. First, so that both need not fit at once.
            *workspace = None;
            // SAFETY: algorithms write it before they read it.
            let fresh = unsafe { self.stream.alloc::<u8>(bytes) }
                .map_err(|e| refused("a workspace for convolutions", e))?;
            *workspace = Some(fresh);
        }
        Ok(workspace
            .as_ref()
            .map_or(0, |w| w.device_ptr(&self.stream).0))
    }

    /// The best algorithm there is, if any.
    fn plan(&self, handle: &Handle, key: Key, shape: &ConvShape) -> Result<Option<Plan>> {
        let none = |why: &str| {
            tracing::warn!(
                "cuDNN has no {:?} algorithm for {shape:?} ({why})",
                key.kind
            );
            Ok(None)
        };
        if key.numbers[..7].contains(&0) {
            return none("an empty tensor");
        }
        let about = match Descriptors::new(key, shape) {
            Ok(about) => about,
            Err(e) => return none(&e),
        };
        let found = if key.deterministic {
            about.suggest(handle, key.kind)
        } else {
            // The search fails when its tensors don't fit beside everything else; the suggestion needs no memory.
            match self.search(handle, &about, key, shape) {
                Ok(found) if !found.is_empty() => Ok(found),
                Ok(_) => about.suggest(handle, key.kind),
                Err(e) => {
                    tracing::warn!("cuDNN chooses for {shape:?} without measuring: {e}");
                    about.suggest(handle, key.kind)
                }
            }
        };
        // Whatever the reason, column matrices do the same; and if the device is lost, they say so.
        let mut found = match found {
            Ok(found) => found,
            Err(e) => return none(&e.to_string()),
        };
        if !key.bf16 && !key.tf32 {
            // Tried with the default, which is TF32, an algorithm is fast in a way that isn't asked for.
            found.sort_by_key(|f| f.math != Math::CUDNN_FMA_MATH as u32);
        }
        for f in found {
            let usable = f.status == Status::CUDNN_STATUS_SUCCESS as u32
                && f.memory <= WORKSPACE
                && (!key.deterministic
                    || f.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC as u32);
            if !usable {
                continue;
            }
            // The algorithm was tried with this multiplication, and is another one with another.
            let Some(math) = multiplication(key, f.math) else {
                continue;
            };
            if about.set_math(math).is_err() {
                continue;
            }
            // SAFETY: the descriptors are complete.
            match unsafe { about.workspace(handle, key.kind, f.algorithm) } {
                Ok(workspace) if workspace <= WORKSPACE => {
                    tracing::debug!(
                        "cuDNN: {:?} of {shape:?}: algorithm {} ({math:?}), {} ms, {workspace} bytes",
                        key.kind,
                        f.algorithm,
                        f.time
                    );
                    return Ok(Some(Plan {
                        about,
                        algorithm: f.algorithm,
                        workspace,
                        only_overwrites: false,
                    }));
                }
                _ => {}
            }
        }
        none("none within the limits")
    }

    /// Algorithms by measured time, fastest first, tried on memory of their own: they overwrite their result.
    fn search(
        &self,
        handle: &Handle,
        about: &Descriptors,
        key: Key,
        shape: &ConvShape,
    ) -> Result<Vec<Found>> {
        let width = if key.bf16 { 2 } else { 4 };
        let alloc = |bytes: usize| {
            // SAFETY: whatever lies there is a number; what comes of it is thrown away.
            unsafe { self.stream.alloc::<u8>(bytes) }
        };
        let tensor = |elements: usize| {
            alloc(elements * width).map_err(|e| refused("memory to try convolutions on", e))
        };
        let x = tensor(shape.n * shape.h * shape.w * shape.c)?;
        let w = tensor(shape.o * shape.filter_len())?;
        let y = tensor(shape.rows() * shape.o)?;
        let mut bytes = WORKSPACE;
        let workspace = loop {
            match alloc(bytes) {
                Ok(workspace) => break workspace,
                Err(_) if bytes > 1 << 20 => bytes /= 4,
                Err(e) => return Err(refused("a workspace to try convolutions with", e)),
            }
        };
        let at = ConvAddresses {
            x: x.device_ptr(&self.stream).0,
            w: w.device_ptr(&self.stream).0,
            y: y.device_ptr(&self.stream).0,
        };
        let room = (workspace.device_ptr(&self.stream).0, bytes);
        // SAFETY: the tensors are as large as the descriptors say.
        let found = unsafe { about.search(handle, key.kind, at, room) };
        // Before the memory goes: what a failed search may have left running.
        self.stream
            .synchronize()
            .map_err(|e| refused("trying convolutions", e))?;
        match found {
            Ok(found) => Ok(found),
            Err(e) if unsupported(e) => Ok(Vec::new()),
            Err(e) => Err(Error::Msg(format!("cuDNN's search: {e}"))),
        }
    }
}

/// How to multiply with an algorithm that was tried with `tried`; `None` if that loses digits nobody agreed to lose.
fn multiplication(key: Key, tried: u32) -> Option<Math> {
    // f32 as such: whatever it was tried with, it will run so.
    let exact = !key.bf16 && !key.tf32;
    match tried {
        t if t == Math::CUDNN_FMA_MATH as u32 => Some(Math::CUDNN_FMA_MATH),
        t if t == Math::CUDNN_DEFAULT_MATH as u32 && exact => Some(Math::CUDNN_FMA_MATH),
        t if t == Math::CUDNN_DEFAULT_MATH as u32 => Some(Math::CUDNN_DEFAULT_MATH),
        t if t == Math::CUDNN_TENSOR_OP_MATH as u32 && !exact => Some(Math::CUDNN_TENSOR_OP_MATH),
        // Among them the one that rounds f32 to f16.
        _ => None,
    }
}

/// Whether nothing was started because cuDNN can't, or thinks that it is asked wrongly: numbers 2000 to 3999 of cuDNN 9, and
/// 9 and 3 of cuDNN 8.
fn unsupported(e: CudnnError) -> bool {
    let number = e.0 as u32;
    matches!(number, 3 | 9 | 2000..=3999)
}

impl Plan {
    /// Starts the pass.
    ///
    /// # Safety
    /// The tensors and the workspace lie where the addresses say.
    unsafe fn run(
        &self,
        handle: &Handle,
        kind: Kind,
        at: ConvAddresses,
        accumulate: bool,
        room: u64,
    ) -> std::result::Result<(), CudnnError> {
        let alpha: f32 = 1.0;
        let beta: f32 = if accumulate { 1.0 } else { 0.0 };
        let (alpha, beta) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let Descriptors { x, w, y, conv } = &self.about;
        let bytes = self.workspace;
        let workspace = room as *mut c_void;
        let [xs, ws, ys] = [at.x, at.w, at.y].map(|address| address as *mut c_void);
        // SAFETY: the caller answers for the memory; alpha and beta are read before the call returns.
        unsafe {
            match kind {
                Kind::Forward => sys::cudnnConvolutionForward(
                    handle.0,
                    alpha,
                    x.0,
                    xs,
                    w.0,
                    ws,
                    conv.0,
                    forward(self.algorithm)?,
                    workspace,
                    bytes,
                    beta,
                    y.0,
                    ys,
                ),
                Kind::InputGrad => sys::cudnnConvolutionBackwardData(
                    handle.0,
                    alpha,
                    w.0,
                    ws,
                    y.0,
                    ys,
                    conv.0,
                    data(self.algorithm)?,
                    workspace,
                    bytes,
                    beta,
                    x.0,
                    xs,
                ),
                Kind::FilterGrad => sys::cudnnConvolutionBackwardFilter(
                    handle.0,
                    alpha,
                    x.0,
                    xs,
                    y.0,
                    ys,
                    conv.0,
                    filter(self.algorithm)?,
                    workspace,
                    bytes,
                    beta,
                    w.0,
                    ws,
                ),
            }
        }
        .result()
    }
}
