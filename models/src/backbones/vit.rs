//! ViT-S/16 (Dosovitskiy et al. 2021; sizes of Touvron et al. 2021), with the parameter names of timm and DINO, which are those of
//! weights trained on people (LUPerson by TransReID-SSL's and PASS's recipes).

use super::BackboneConfig;
use crate::Graph;
use crate::graph::{Init, POOLED, ParamKind};
use crate::heads::bnneck;
use crate::ops::Op;

/// Side of a patch in pixels.
pub const PATCH: usize = 16;
/// Blocks.
const DEPTH: usize = 12;
/// Attention heads of a block.
const HEADS: usize = 6;
/// Channels per unit of `model.width`: 384 at 64.
const CHANNELS: usize = 6;
/// Width of a block's hidden layer, in widths of the tokens.
const HIDDEN: usize = 4;
/// Added to the variance in layer norms (timm's).
const EPS: f64 = 1e-6;
/// Standard deviation of the starts.
const STD: f32 = 0.02;
/// Name of the parameter that says where tokens are: it depends on the size of the pictures.
pub const POSITIONS: &str = "pos_embed";

/// Builds patches, blocks, norm and BN-neck on the class token: outputs `pooled`, `neck`, `embedding`. Ranges are checked by
/// [`BackboneConfig::build`].
pub(super) fn build(config: &BackboneConfig) -> Graph {
    let width = CHANNELS * config.width;
    let mut graph = Graph::new("vit_small_16", [3, config.height, config.input_width]);
    let grid = [config.height / PATCH, config.input_width / PATCH];
    let mut x = patches(&mut graph, width, grid);
    for block in 0..DEPTH {
        x = self::block(&mut graph, &x, &format!("blocks.{block}"), width);
    }
    let x = norm(&mut graph, &x, "norm", width);
    let pooled = graph.push("class", Op::FirstToken, &[&x], &[]);
    graph.outputs.insert(POOLED.into(), pooled.clone());
    bnneck::append(&mut graph, &pooled, width);
    graph
}

/// Patches as tokens behind the class token, with their places.
fn patches(graph: &mut Graph, width: usize, [rows, columns]: [usize; 2]) -> String {
    let normal = Init::Normal { std: STD };
    let class = param(graph, "cls_token", &[1, 1, width], normal.clone());
    let positions = [1, 1 + rows * columns, width];
    let positions = param(graph, POSITIONS, &positions, normal.clone());
    let name = "patch_embed.proj";
    let weight = [width, 3, PATCH, PATCH];
    let weight = param(graph, &format!("{name}.weight"), &weight, normal);
    let bias = param(graph, &format!("{name}.bias"), &[width], ZERO);
    let cut = Op::Conv2d {
        out_channels: width,
        kernel: [PATCH; 2],
        stride: [PATCH; 2],
        padding: [0; 2],
        dilation: [1; 2],
        groups: 1,
        bias: true,
    };
    let input = graph.input.clone();
    let x = graph.push(name, cut, &[&input], &[&weight, &bias]);
    graph.push("tokens", Op::Tokens, &[&x], &[&class, &positions])
}

/// `x + attention(norm(x))`, then `x + hidden(norm(x))`.
fn block(graph: &mut Graph, x: &str, name: &str, width: usize) -> String {
    let of = |part: &str| format!("{name}.{part}");
    let y = norm(graph, x, &of("norm1"), width);
    let y = linear(graph, &y, &of("attn.qkv"), [width, 3 * width]);
    let y = graph.push(of("attn"), Op::Attention { heads: HEADS }, &[&y], &[]);
    let y = linear(graph, &y, &of("attn.proj"), [width, width]);
    let x = graph.push(of("add1"), Op::Add, &[x, &y], &[]);
    let y = norm(graph, &x, &of("norm2"), width);
    let y = linear(graph, &y, &of("mlp.fc1"), [width, HIDDEN * width]);
    let y = graph.push(of("mlp.act"), Op::Gelu, &[&y], &[]);
    let y = linear(graph, &y, &of("mlp.fc2"), [HIDDEN * width, width]);
    graph.push(of("add2"), Op::Add, &[&x, &y], &[])
}

fn norm(graph: &mut Graph, x: &str, name: &str, width: usize) -> String {
    let one = Init::Constant { value: 1.0 };
    let weight = param(graph, &format!("{name}.weight"), &[width], one);
    let bias = param(graph, &format!("{name}.bias"), &[width], ZERO);
    graph.push(name, Op::LayerNorm { eps: EPS }, &[x], &[&weight, &bias])
}

fn linear(graph: &mut Graph, x: &str, name: &str, sizes: [usize; 2]) -> String {
    super::linear(graph, x, name, sizes, Init::Normal { std: STD })
}

const ZERO: Init = Init::Constant { value: 0.0 };

fn param(graph: &mut Graph, name: &str, shape: &[usize], init: Init) -> String {
    graph.param(name, shape, ParamKind::Trainable, init)
}

/// Positions (1, 1 + T, D) learnt on a grid of other pictures, brought to `grid` (rows, columns) by bilinear interpolation between
/// the middles of cells (PyTorch's `align_corners = False`), as TransReID loads them; the class token's stays. `None` if it
/// cannot be told how many rows the old ones have.
pub fn resize_positions(shape: &[usize], values: &[f32], grid: [usize; 2]) -> Option<Vec<f32>> {
    let &[1, tokens, width] = shape else {
        return None;
    };
    let old = old_grid(tokens.checked_sub(1)?, grid)?;
    let (class, cells) = values.split_at_checked(width)?;
    let mut resized = class.to_vec();
    resized.reserve(grid[0] * grid[1] * width);
    for row in 0..grid[0] {
        let ([top, bottom], rise) = between(row, grid[0], old[0]);
        for column in 0..grid[1] {
            let ([left, right], run) = between(column, grid[1], old[1]);
            let cell = |r: usize, c: usize| &cells[(r * old[1] + c) * width..][..width];
            let corners = [
                cell(top, left),
                cell(top, right),
                cell(bottom, left),
                cell(bottom, right),
            ];
            let shares = [
                (1.0 - rise) * (1.0 - run),
                (1.0 - rise) * run,
                rise * (1.0 - run),
                rise * run,
            ];
            for i in 0..width {
                let parts = corners.iter().zip(shares);
                resized.push(parts.map(|(cell, share)| share * cell[i]).sum());
            }
        }
    }
    Some(resized)
}

/// Rows and columns of so many tokens: a square's, else some in the new grid's proportions or twice as many rows as columns, as
/// pictures of people mostly are.
fn old_grid(tokens: usize, [rows, columns]: [usize; 2]) -> Option<[usize; 2]> {
    let shaped = |[rows, columns]: [usize; 2]| {
        let wide = (tokens * columns / rows).isqrt();
        let fits =
            wide > 0 && tokens.is_multiple_of(wide) && tokens / wide * columns == wide * rows;
        fits.then(|| [tokens / wide, wide])
    };
    shaped([1, 1])
        .or(shaped([rows, columns]))
        .or(shaped([2, 1]))
}

/// Between which two of `old` cells the middle of cell `i` of `new` lies, and how near to the second, 0..1.
fn between(i: usize, new: usize, old: usize) -> ([usize; 2], f32) {
    let at = ((i as f64 + 0.5) * old as f64 / new as f64 - 0.5).max(0.0);
    let first = (at.floor() as usize).min(old - 1);
    (
        [first, (first + 1).min(old - 1)],
        (at - first as f64) as f32,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backbones::Backbone;

    #[test]
    fn the_published_network_has_its_size() {
        let config = BackboneConfig {
            backbone: Backbone::VitSmall16,
            height: 224,
            input_width: 224,
            ..Default::default()
        };
        let graph = config.build().unwrap();
        // timm's vit_small_patch16_224 without its head has 21,665,664 parameters; the neck's weight is 384 more.
        assert_eq!(graph.trainable_elements(), 21_665_664 + 384);
        assert_eq!(graph.width(POOLED).unwrap(), 384);
        let odd = BackboneConfig {
            height: 230,
            ..config
        };
        let error = odd.build().unwrap_err().to_string();
        assert!(
            error.contains("model.height") && error.contains("16"),
            "{error}"
        );
    }

    #[test]
    fn grids_are_recognised() {
        assert_eq!(old_grid(196, [16, 8]), Some([14, 14]));
        assert_eq!(old_grid(128, [16, 8]), Some([16, 8]));
        assert_eq!(old_grid(128, [24, 8]), Some([16, 8]));
        assert_eq!(old_grid(192, [24, 8]), Some([24, 8]));
        assert_eq!(old_grid(130, [16, 8]), None);
        assert_eq!(old_grid(0, [16, 8]), None);
    }

    #[test]
    fn positions_of_the_same_grid_stay_and_a_slope_stays_a_slope() {
        let (rows, columns) = (3usize, 3usize);
        let slope: Vec<f32> = std::iter::once(9.0)
            .chain((0..9).map(|i| (i / columns) as f32))
            .collect();
        let shape = [1, 1 + rows * columns, 1];
        assert_eq!(resize_positions(&shape, &slope, [3, 3]).unwrap(), slope);
        // Middles of six rows over three: 0.25 apart from the old ones, and flat beyond the outermost.
        let six = resize_positions(&shape, &slope, [6, 1]).unwrap();
        assert_eq!(six, [9.0, 0.0, 0.25, 0.75, 1.25, 1.75, 2.0]);
    }
}
