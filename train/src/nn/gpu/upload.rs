//! Batches from the host to the device while it computes.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, DevicePtr, PinnedHostSlice, result,
};
use candle_core::{DType, Error, Result, Tensor, bail};
use rayon::prelude::*;

use super::cuda::{Cuda, refused};
use super::driver::Driver;

/// Batches on their way at once: one is copied while the next is written, and one more so that neither waits.
const SLOTS: usize = 3;

/// Values that a thread copies at a time.
const PART: usize = 1 << 18;

/// Copies batches of f32 to a device on a stream of its own, beside what the device computes.
///
/// # Order
/// Nothing keeps two streams in order but the events recorded here (cudarc's own tracking is off). Each slot has host memory,
/// device memory (`staging`) and two events, and one upload is:
///
/// 1. The host waits for `arrived` of the slot's last upload: the copy out of its host memory is over. Then it writes there.
/// 2. The copy stream waits for `taken` of the slot's last upload: the compute stream has read the staging memory. Then host
///    to staging, then `arrived`.
/// 3. The compute stream waits for `arrived`. Then it allocates the tensor, copies staging to tensor, then `taken`.
///
/// An event that was never recorded counts as over, so the first round waits for nothing. Step 2 waits for compute of
/// `SLOTS` uploads ago only. The tensor belongs to the compute stream from its allocation on, and is freed there, as every
/// other. Staging memory is allocated on the copy stream and its first use elsewhere follows `arrived`, recorded there after
/// the allocation; before it is freed the host waits for both events.
///
/// Copying into the tensor itself would save the copy on the device (25 MB: 10 microseconds), but its memory is handed out by
/// the compute stream, in order: the upload would have to wait for everything launched before.
pub struct Uploader {
    device: Arc<Cuda>,
    compute: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    slots: Vec<Slot>,
    next: usize,
}

struct Slot {
    memory: Option<Memory>,
    arrived: CudaEvent,
    taken: CudaEvent,
}

struct Memory {
    host: PinnedHostSlice<f32>,
    staging: CudaSlice<f32>,
}

impl Uploader {
    /// An uploader to this device; memory is taken at the first uploads.
    ///
    /// # Errors
    /// If the device gives no stream or event.
    pub fn new(device: Arc<Cuda>) -> Result<Self> {
        let compute = device.stream().clone();
        let context = compute.context();
        let copies = context
            .new_stream()
            .map_err(|e| refused("opening a stream for copies", e))?;
        let event = || {
            context
                .new_event(None)
                .map_err(|e| refused("making an event", e))
        };
        let mut slots = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            slots.push(Slot {
                memory: None,
                arrived: event()?,
                taken: event()?,
            });
        }
        Ok(Self {
            device,
            compute,
            copies,
            slots,
            next: 0,
        })
    }

    /// A tensor of this shape with these values on the device. Returns once the values are in host memory of the uploader;
    /// what is launched next on the device sees them.
    ///
    /// The copy overlaps with what the device was given before, so call it for the next batch when all work of this one is
    /// launched, and before waiting for its result.
    ///
    /// # Errors
    /// If the lengths differ, or the device has no memory left or refuses.
    pub fn upload(&mut self, data: &[f32], shape: &[usize]) -> Result<Tensor> {
        let len = data.len();
        if shape.iter().product::<usize>() != len {
            bail!("cannot upload {len} values as a tensor of shape {shape:?}");
        }
        if len == 0 {
            return Tensor::zeros(shape, DType::F32, self.device.device());
        }
        let index = self.next;
        self.next = (index + 1) % self.slots.len();
        let slot = &mut self.slots[index];

        // Step 1.
        let what = "waiting for an earlier upload";
        slot.arrived.synchronize().map_err(|e| refused(what, e))?;
        if slot.memory.as_ref().is_none_or(|m| m.host.len() < len) {
            slot.taken.synchronize().map_err(|e| refused(what, e))?;
            // The old memory first: both need not fit at once.
            slot.memory = None;
            // SAFETY: nothing reads host or staging memory before it is written below.
            slot.memory = Some(unsafe {
                Memory {
                    host: self
                        .copies
                        .context()
                        .alloc_pinned(len)
                        .map_err(|e| refused("reserving host memory for uploads", e))?,
                    staging: self
                        .copies
                        .alloc(len)
                        .map_err(|e| refused("reserving device memory for uploads", e))?,
                }
            });
        }
        let Some(memory) = slot.memory.as_mut() else {
            bail!("no memory for an upload");
        };
        let host = memory
            .host
            .as_mut_slice()
            .map_err(|e| refused(what, e))?
            .get_mut(..len)
            .ok_or_else(|| Error::Msg("upload larger than its memory".into()))?;
        // In parts on all threads: one alone would hold up the launches.
        host.par_chunks_mut(PART)
            .zip(data.par_chunks(PART))
            .for_each(|(host, data)| host.copy_from_slice(data));

        // Step 2.
        let what = "uploading a batch";
        self.copies
            .wait(&slot.taken)
            .map_err(|e| refused(what, e))?;
        let (staging, _) = memory.staging.device_ptr(&self.copies);
        // SAFETY: `staging` holds at least `len` values, and `host` is neither written nor freed before `arrived`.
        unsafe { result::memcpy_htod_async(staging, host, self.copies.cu_stream()) }
            .map_err(|e| refused(what, e))?;
        slot.arrived
            .record(&self.copies)
            .map_err(|e| refused(what, e))?;

        // Step 3.
        self.compute
            .wait(&slot.arrived)
            .map_err(|e| refused(what, e))?;
        // SAFETY: written as a whole by the copy below, before anything else on the compute stream.
        let tensor = unsafe { Tensor::empty(shape, DType::F32, self.device.device())? };
        let to = self.device.address(&tensor)?;
        let bytes = std::mem::size_of_val(data);
        // SAFETY: both hold `bytes`; the staging memory isn't written again before `taken`.
        unsafe { result::memcpy_dtod_async(to, staging, bytes, self.compute.cu_stream()) }
            .map_err(|e| refused(what, e))?;
        slot.taken
            .record(&self.compute)
            .map_err(|e| refused(what, e))?;
        Ok(tensor)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            // Copies in flight would read or write freed memory. An error means that the device is lost, and so are they.
            let over = slot
                .arrived
                .synchronize()
                .and_then(|()| slot.taken.synchronize());
            if let Err(error) = over {
                tracing::warn!("ending uploads: {error}");
            }
            slot.memory = None;
        }
    }
}
