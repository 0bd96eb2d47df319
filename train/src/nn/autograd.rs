//! Hooking forward and backward passes of our own into candle's autograd.

use std::cell::RefCell;
use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage,
    Tensor, bail,
};

thread_local! {
    /// Gradients of parameters inside nets, while [`backward`] runs on this thread.
    static COLLECTED: RefCell<Option<Vec<(Tensor, Tensor)>>> = const { RefCell::new(None) };
}

/// Gradients of a scalar loss: `loss.backward()`, plus those of the parameters inside every [`Net`](super::Net) it went
/// through. Gradients of several forward passes of one net add up.
///
/// Calling `loss.backward()` itself fails for a loss that went through a net.
///
/// # Errors
/// candle's, or that of a kernel; a forward pass can be gone through backwards once.
pub fn backward(loss: &Tensor) -> super::Result<GradStore> {
    struct Reset(Option<Vec<(Tensor, Tensor)>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            COLLECTED.replace(self.0.take());
        }
    }
    let outer = Reset(COLLECTED.replace(Some(Vec::new())));
    let mut grads = loss.backward()?;
    let collected = COLLECTED.take().unwrap_or_default();
    drop(outer);
    for (param, grad) in collected {
        match grads.remove(&param) {
            Some(sum) => grads.insert(&param, (sum + grad)?),
            None => grads.insert(&param, grad),
        };
    }
    Ok(grads)
}

/// Hands a parameter's gradient to the [`backward`] that is running.
pub(super) fn collect(param: &Tensor, grad: Tensor) -> Result<()> {
    COLLECTED.with_borrow_mut(|collected| match collected {
        Some(list) => {
            list.push((param.clone(), grad));
            Ok(())
        }
        None => bail!("this loss went through a network: call reid_train::nn::backward(&loss)"),
    })
}

/// Gives `value`, computed from `inputs` outside candle's sight, a backward pass: `back` maps the gradient of the value
/// to one gradient per input. At most three inputs.
pub(super) fn attach<B>(
    name: &'static str,
    inputs: &[&Tensor],
    value: Tensor,
    back: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    if !inputs.iter().any(|t| t.track_op()) {
        return Ok(value);
    }
    let op = Attached {
        name,
        value: Mutex::new(Some(value)),
        back,
    };
    match inputs {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => bail!("{name}: an operator can be attached to 1, 2 or 3 tensors"),
    }
}

struct Attached<B> {
    name: &'static str,
    value: Mutex<Option<Tensor>>,
    back: B,
}

impl<B: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>> Attached<B> {
    fn take(&self) -> Result<Tensor> {
        let value = self.value.lock().ok().and_then(|mut v| v.take());
        match value {
            Some(value) => value.force_contiguous(),
            None => bail!("{}: the value was taken already", self.name),
        }
    }

    fn value(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(s) => Ok((s.clone(), layout.shape().clone())),
            _ => bail!("{}: the value is not on the CPU", self.name),
        }
    }

    fn value_on_gpu(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(s) => Ok((s.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the value is not on the GPU", self.name),
        }
    }

    /// Gradients for the inputs that want one; what `back` leaves out is zero.
    fn gradients<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let mut grads = (self.back)(&dy.contiguous()?)?.into_iter();
        let mut out = [const { None }; N];
        for (out, input) in out.iter_mut().zip(inputs) {
            let grad = grads.next().flatten();
            if input.track_op() {
                *out = Some(match grad {
                    Some(grad) => grad,
                    None => input.zeros_like()?,
                });
            }
        }
        Ok(out)
    }
}

impl<B: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp1 for Attached<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value()
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value_on_gpu()
    }
    fn bwd(&self, a: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients([a], dy)?;
        Ok(a)
    }
}

impl<B: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp2 for Attached<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.value()
    }
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.value_on_gpu()
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], dy)?;
        Ok((a, b))
    }
}

impl<B: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp3 for Attached<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.value()
    }
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.value_on_gpu()
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], dy)?;
        Ok((a, b, c))
    }
}
