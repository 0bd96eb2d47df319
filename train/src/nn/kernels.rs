//! What a device has to provide to run networks.
//!
//! Every tensor is contiguous. Maps are (N, H, W, C) in the device's [`Kernels::map_dtype`], on a processor f32; vectors
//! (N, D), parameters, statistics and what leaves a network are f32 everywhere. Gradients handed in may be overwritten
//! where a method takes them by value: the tape holds the only reference.
//!
//! Nothing here has to wait for the device but what says so: statistics, norms and GeM's exponent stay where they are.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

/// Geometry of a 2-D convolution. Pairs are `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel size.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Zero padding on both sides.
    pub padding: [usize; 2],
    /// Dilation.
    pub dilation: [usize; 2],
    /// Groups.
    pub groups: usize,
}

impl ConvShape {
    /// Output height and width. The shapes have been checked by [`reid_models::shape`].
    pub fn out(&self) -> [usize; 2] {
        let axis = |len: usize, i: usize| {
            (len + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1)
                / self.stride[i]
                + 1
        };
        [axis(self.h, 0), axis(self.w, 1)]
    }

    /// Output pixels of the whole batch: rows of the matrix product.
    pub fn rows(&self) -> usize {
        let [oh, ow] = self.out();
        self.n * oh * ow
    }

    /// Elements of one filter.
    pub fn filter_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.c / self.groups
    }

    /// Whether the input's pixels are already the rows of the matrix product.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0] && self.groups == 1
    }
}

/// Geometry of a 2-D max pooling. Pairs are `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Kernel size.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Padding (minus infinity) on both sides.
    pub padding: [usize; 2],
}

impl PoolShape {
    /// Output height and width.
    pub fn out(&self) -> [usize; 2] {
        let axis = |len: usize, i: usize| {
            (len + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1
        };
        [axis(self.h, 0), axis(self.w, 1)]
    }
}

/// Windows over space, the product of ranges of rows and of columns; they may overlap, leave pixels out or be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// Height and width of the map they lie in.
    pub input: [usize; 2],
    /// Rows of each window row.
    pub ys: Vec<Range<usize>>,
    /// Columns of each window column.
    pub xs: Vec<Range<usize>>,
    /// Weight of each window, row by row.
    pub weights: Vec<f32>,
}

/// What happens to the result of a convolution or normalisation before it is written.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Multiplies each output channel (folded batch norm), (O).
    pub scale: Option<&'a Tensor>,
    /// Added to each output channel, (O).
    pub bias: Option<&'a Tensor>,
    /// Added elementwise (a shortcut), same shape as the output.
    pub residual: Option<&'a Tensor>,
    /// Whether negative values become 0, last.
    pub relu: bool,
}

/// Where the gradient of a convolution's input goes.
pub enum InputGrad {
    /// Not needed.
    Skip,
    /// Into a new tensor.
    New,
    /// Added to this one.
    AddTo(Tensor),
}

/// Gradients of a convolution or linear layer.
pub struct WeightedGrads {
    /// Of the input, if asked for.
    pub dx: Option<Tensor>,
    /// Of the weight, in the weight's own layout, if asked for.
    pub dw: Option<Tensor>,
    /// Of the bias, if asked for.
    pub db: Option<Tensor>,
}

/// Statistics of rows, for layer normalisation.
#[derive(Clone, Debug)]
pub struct RowStats {
    /// Mean of each row, (R).
    pub mean: Tensor,
    /// `1 / sqrt(biased variance + eps)` of each row, (R).
    pub inv_std: Tensor,
}

/// Statistics of a batch, per group and channel.
#[derive(Clone, Debug)]
pub struct BatchStats {
    /// Groups the batch was split into.
    pub groups: usize,
    /// Mean, (groups, C).
    pub mean: Tensor,
    /// `1 / sqrt(biased variance + eps)`, (groups, C).
    pub inv_std: Tensor,
    /// Unbiased variance, (groups, C).
    pub unbiased_var: Tensor,
}

/// A batch norm with constant statistics as `x * scale + shift`, (C) each.
pub struct FoldedNorm {
    /// `weight * inv_std`.
    pub scale: Tensor,
    /// `bias - mean * scale`.
    pub shift: Tensor,
    /// `1 / sqrt(variance + eps)`.
    pub inv_std: Tensor,
}

/// Gradients of a normalisation with optional shortcut and ReLU.
pub struct NormGrads {
    /// Of the input.
    pub dx: Tensor,
    /// Of the weight, in its shape.
    pub dw: Tensor,
    /// Of the bias, in its shape.
    pub db: Tensor,
    /// Of the shortcut, if there was one.
    pub dresidual: Option<Tensor>,
}

/// How space is reduced to one value per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GlobalPool {
    /// Mean.
    Avg,
    /// Maximum; the first position gets the gradient.
    Max,
    /// Generalised mean, whose exponent p is a tensor of one element, with this lower clamp of the input.
    Gem {
        /// Lower clamp.
        eps: f32,
    },
}

/// A parameter that an Adam step changes, its gradient and moments, all of one size.
pub struct AdamItem<'a> {
    /// Parameter.
    pub param: &'a Tensor,
    /// Gradient.
    pub grad: &'a Tensor,
    /// First moment.
    pub mean: &'a Tensor,
    /// Second moment.
    pub square: &'a Tensor,
    /// AMSGrad's largest second moment so far.
    pub top: Option<&'a Tensor>,
    /// `lr / (1 - beta1^t)`.
    pub rate: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub inv_sqrt_correction: f32,
    /// L2 decay, added to the gradient.
    pub decay: f32,
    /// Factor on the parameter before the step: AdamW's `1 - lr * decay`.
    pub keep: f32,
}

/// What all parameters of an Adam step share.
#[derive(Clone, Copy, Debug)]
pub struct AdamRates {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the divisor.
    pub eps: f32,
}

/// A parameter that an SGD step changes, its gradient and velocity, all of one size.
pub struct SgdItem<'a> {
    /// Parameter.
    pub param: &'a Tensor,
    /// Gradient.
    pub grad: &'a Tensor,
    /// Velocity; zeros make the first step PyTorch's (velocity = gradient).
    pub velocity: &'a Tensor,
    /// Learning rate.
    pub lr: f32,
    /// Share of the gradient that enters the velocity: 1 - dampening, but 1 at the first step.
    pub share: f32,
    /// L2 decay, added to the gradient.
    pub decay: f32,
}

/// What all parameters of an SGD step share.
#[derive(Clone, Copy, Debug)]
pub struct SgdRates {
    /// Share of the velocity that stays.
    pub momentum: f32,
    /// Nesterov's form.
    pub nesterov: bool,
}

/// Factor that brings gradients whose squares sum up to `squares` down to the norm `clip`, as `clip_grad_norm_` has it;
/// `None` if the norm isn't finite.
pub fn clip_scale(squares: f64, clip: Option<f64>) -> Option<f32> {
    let norm = squares.sqrt();
    norm.is_finite()
        .then(|| clip.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0)) as f32)
}

/// The operators of a device, forward and backward.
pub trait Kernels: Send + Sync {
    /// How maps are kept.
    fn map_dtype(&self) -> DType;
    /// (N, C, H, W) in f32 to (N, H, W, C) as a map.
    fn to_rows(&self, x: &Tensor) -> Result<Tensor>;
    /// A map (N, H, W, C) to (N, C, H, W) in f32.
    fn to_planes(&self, x: &Tensor) -> Result<Tensor>;
    /// Waits until everything that was asked for is done: for measuring.
    fn synchronize(&self) -> Result<()>;
    /// Whether all elements are 0; a device that would have to wait for the answer may say no.
    fn is_zero(&self, x: &Tensor) -> Result<bool>;
    /// Convolution with weight (O, C / groups, kh, kw) and everything in the epilogue.
    fn conv2d(&self, shape: &ConvShape, x: &Tensor, w: &Tensor, then: Epilogue) -> Result<Tensor>;
    /// Gradients of a convolution (without scale, residual or ReLU).
    fn conv2d_backward(
        &self,
        shape: &ConvShape,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
        dx: InputGrad,
        need: [bool; 2],
    ) -> Result<WeightedGrads>;
    /// `relu(norm(x) * w + b + residual)` with the statistics of each of `groups` equal parts of the batch; `w` and `b` are
    /// (C), or (groups, C): one group per sample makes it instance normalisation or AdaIN.
    fn batch_norm_train(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        eps: f64,
        groups: usize,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<(Tensor, BatchStats)>;
    /// Gradients of [`Kernels::batch_norm_train`] (`frozen` = false) or of the same with constant statistics
    /// (`frozen` = true). `y` is the forward's result if it ended with a ReLU.
    fn batch_norm_backward(
        &self,
        stats: &BatchStats,
        frozen: bool,
        x: &Tensor,
        w: &Tensor,
        y: Option<&Tensor>,
        dy: Tensor,
        has_residual: bool,
    ) -> Result<NormGrads>;
    /// Batch norm with constant statistics, (C) each.
    fn fold_norm(
        &self,
        w: &Tensor,
        b: &Tensor,
        mean: &Tensor,
        var: &Tensor,
        eps: f64,
    ) -> Result<FoldedNorm>;
    /// `running = (1 - momentum) * running + momentum * mean of the first groups of fresh`; (C) and (groups, C).
    fn blend(&self, running: &Tensor, fresh: &Tensor, groups: usize, momentum: f64) -> Result<()>;
    /// Each row of (R, D) normalised over its values, times `w` plus `b`, (D) each.
    fn layer_norm(
        &self,
        x: &Tensor,
        w: Option<&Tensor>,
        b: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, RowStats)>;
    /// Gradients of [`Kernels::layer_norm`]; those of weight and bias (D) are there even without them.
    fn layer_norm_backward(
        &self,
        stats: &RowStats,
        x: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<NormGrads>;
    /// `x * scale + bias + residual`, then ReLU; scale and bias per channel (last axis).
    fn affine(&self, x: &Tensor, then: Epilogue) -> Result<Tensor>;
    /// `max(x, 0)`.
    fn relu(&self, x: &Tensor) -> Result<Tensor>;
    /// `dy` where `y > 0`, else 0.
    fn relu_backward(&self, y: &Tensor, dy: Tensor) -> Result<Tensor>;
    /// `x` where positive, `slope * x` elsewhere.
    fn leaky_relu(&self, x: &Tensor, slope: f32) -> Result<Tensor>;
    /// `dy` where `x > 0`, `slope * dy` elsewhere.
    fn leaky_relu_backward(&self, x: &Tensor, dy: &Tensor, slope: f32) -> Result<Tensor>;
    /// `a + b`, then ReLU if asked for.
    fn add(&self, a: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor>;
    /// `a += b`; `a` is not shared.
    fn add_assign(&self, a: &Tensor, b: &Tensor) -> Result<()>;
    /// Max pooling: result, and the position (`iy * w + ix`, u32) of each maximum.
    fn max_pool2d(&self, shape: &PoolShape, x: &Tensor) -> Result<(Tensor, Tensor)>;
    /// Gradient of max pooling.
    fn max_pool2d_backward(
        &self,
        shape: &PoolShape,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor>;
    /// Weighted sum over each window: (N, H, W, C) to (N, rows, columns, C).
    fn window_sum(&self, windows: &Windows, x: &Tensor) -> Result<Tensor>;
    /// The transpose of [`Kernels::window_sum`]: (N, rows, columns, C) to (N, H, W, C).
    fn window_spread(&self, windows: &Windows, y: &Tensor) -> Result<Tensor>;
    /// Maximum over each window, and its position (`iy * w + ix`, u32); the first of equal values counts.
    fn window_max(&self, windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)>;
    /// Gradient of [`Kernels::window_max`].
    fn window_max_backward(
        &self,
        windows: &Windows,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor>;
    /// (N, H, W, C) to (N, C) in f32; `p` is GeM's exponent, (1).
    fn global_pool(&self, kind: GlobalPool, p: Option<&Tensor>, x: &Tensor) -> Result<Tensor>;
    /// Gradient of the input and, for GeM, of p.
    fn global_pool_backward(
        &self,
        kind: GlobalPool,
        p: Option<&Tensor>,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)>;
    /// (N, D) times (O, D) transposed, plus bias.
    fn linear(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor>;
    /// Gradients of [`Kernels::linear`]; `need` is for x, w, b.
    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
        need: [bool; 3],
    ) -> Result<WeightedGrads>;
    /// `x / max(|x|, eps)` over the last axis.
    fn l2_normalize(&self, x: &Tensor, eps: f64) -> Result<Tensor>;
    /// Gradient of [`Kernels::l2_normalize`]; rows of norm 0 get none.
    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, eps: f64) -> Result<Tensor>;

    /// Sum of squares of each tensor, (count) in f64.
    fn squares(&self, tensors: &[&Tensor]) -> Result<Tensor>;
    /// One Adam step in place. `squares` are the gradients' ([`Kernels::squares`]); if their sum isn't finite nothing
    /// happens, else gradients are scaled by [`clip_scale`].
    fn adam(
        &self,
        items: &[AdamItem],
        rates: AdamRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()>;
    /// One SGD step in place, under the same conditions.
    fn sgd(
        &self,
        items: &[SgdItem],
        rates: SgdRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()>;
    /// `own = alpha * own + (1 - alpha) * from` for each pair of (own, from), in place.
    fn ema(&self, pairs: &[(&Tensor, &Tensor)], alpha: f32) -> Result<()>;
}
