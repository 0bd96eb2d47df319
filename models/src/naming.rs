//! Which tensor of a checkpoint is which parameter of a graph.
//!
//! A graph's backbone has torchvision's names, which are timm's and torchreid's too. Around them frameworks put
//! * prefixes: `module.` (DataParallel), `backbone.` (fast-reid, mmcv), `base.` (BoT), `model.`, `encoder.`, `encoder_q.`
//!   (MoCo), `teacher.`, `student.` (DINO);
//! * numbers: open-reid and what descends from it (MMT, SpCL, Cluster-Contrast) keep the backbone in an `nn.Sequential`,
//!   `base.0.weight` is `conv1.weight`, and the stages are 3 to 6, or 4 to 7 if the ReLU is counted;
//! * names of their own for the BN-neck and the exponent of the GeM pooling.
//!
//! A ViT has timm's and DINO's names; its positions are resized to the pictures' size.
//!
//! Classifiers (`fc`, `classifier`, `heads.weight`) belong to the identities trained on: they are left over, and said to be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::Graph;
use crate::backbones::vit;
use crate::graph::Param;
use crate::weights::{Weights, is_counter};

/// What loading weights into a graph did, or would do. All lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Graph parameters that got their values.
    pub loaded: Vec<String>,
    /// Graph parameters for which the file has nothing: they keep their start.
    pub missing: Vec<String>,
    /// Tensors of the file that the graph doesn't know (a classifier `fc.*`, for instance).
    pub unused: Vec<String>,
    /// Same name, other shape: not loaded. "name: the file has [..], the graph wants [..]".
    pub reshaped_refused: Vec<String>,
}

/// Prefixes that training frameworks put before torchvision's names.
const PREFIXES: [&str; 8] = [
    "module.",
    "base.",
    "backbone.",
    "model.",
    "encoder.",
    "encoder_q.",
    "teacher.",
    "student.",
];

/// Other names for modules after the backbone: fast-reid's, BoT's and open-reid's.
const SYNONYMS: [(&str, &str); 8] = [
    ("heads.bottleneck.0.", "neck."),
    ("heads.bnneck.", "neck."),
    ("bottleneck.", "neck."),
    ("bnneck.", "neck."),
    ("feat_bn.", "neck."),
    ("heads.pool_layer.", "pool."),
    ("global_pool.", "pool."),
    ("gap.", "pool."),
];

/// A tensor name without the wrappers' prefixes.
fn bare(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|p| name.strip_prefix(p)) {
        name = rest;
    }
    name
}

/// The number a name begins with, and what follows the dot.
fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A tensor's name as the graph would call it. `last` is the largest number a name of this file begins with: the fourth
/// stage, if the backbone is an `nn.Sequential`.
fn canonical(name: &str, last: usize) -> Cow<'_, str> {
    let name = bare(name);
    if let Some((from, to)) = SYNONYMS.iter().find(|(from, _)| name.starts_with(from)) {
        return format!("{to}{}", &name[from.len()..]).into();
    }
    match numbered(name) {
        Some((number, rest)) if (6..=7).contains(&last) => match number {
            0 => format!("conv1.{rest}").into(),
            1 => format!("bn1.{rest}").into(),
            _ if (last - 3..=last).contains(&number) => {
                format!("layer{}.{rest}", number + 4 - last).into()
            }
            _ => name.into(),
        },
        _ => name.into(),
    }
}

/// Graph parameter to the file's tensor name, by name alone; an exact name wins over a translated one.
fn pairs<'a>(graph: &'a Graph, weights: &'a Weights) -> BTreeMap<&'a str, &'a str> {
    let wanted: BTreeSet<&str> = graph.params.iter().map(|p| p.name.as_str()).collect();
    let last = weights
        .tensors
        .keys()
        .filter_map(|name| Some(numbered(bare(name))?.0))
        .max()
        .unwrap_or(0);
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::new();
    for name in weights.tensors.keys() {
        if let Some(&param) = wanted.get(name.as_str()) {
            pairs.insert(param, name);
        } else if let Some(&param) = wanted.get(canonical(name, last).as_ref()) {
            pairs.entry(param).or_insert(name);
        }
    }
    pairs
}

/// Compares a graph's parameters with a file's tensors. Wrappers' prefixes are looked through, other frameworks' names are
/// translated; `num_batches_tracked` is ignored.
pub fn match_names(graph: &Graph, weights: &Weights) -> LoadReport {
    select(graph, weights).1
}

/// The graph's parameters with the values the file has for them, and the report of [`match_names`].
pub fn select(graph: &Graph, weights: &Weights) -> (Weights, LoadReport) {
    let pairs = pairs(graph, weights);
    let mut report = LoadReport::default();
    let mut selected = Weights::default();
    for param in &graph.params {
        let Some(&name) = pairs.get(param.name.as_str()) else {
            report.missing.push(param.name.clone());
            continue;
        };
        let tensor = &weights.tensors[name];
        if let Some(values) = fitted(graph, param, tensor) {
            report.loaded.push(param.name.clone());
            let value = (param.shape.clone(), values);
            selected.tensors.insert(param.name.clone(), value);
        } else {
            report.reshaped_refused.push(format!(
                "{}: the file has {:?}, the graph wants {:?}",
                param.name, tensor.0, param.shape
            ));
        }
    }
    let used: BTreeSet<&str> = pairs.values().copied().collect();
    report.unused = weights
        .tensors
        .keys()
        .filter(|name| !used.contains(name.as_str()) && !is_counter(name))
        .cloned()
        .collect();
    report.loaded.sort();
    report.missing.sort();
    report.reshaped_refused.sort();
    (selected, report)
}

/// A tensor as the parameter wants it: as it is; a 1 x 1 convolution of vectors as the matrix it is (pretrainedmodels' and timm's
/// squeeze and excitation); a transformer's positions resized for other pictures. `None` if it does not fit.
fn fitted(
    graph: &Graph,
    param: &Param,
    (shape, values): &(Vec<usize>, Vec<f32>),
) -> Option<Vec<f32>> {
    if *shape == param.shape {
        return Some(values.clone());
    }
    if let ([o, i, 1, 1], [outputs, inputs]) = (shape.as_slice(), param.shape.as_slice())
        && (o, i) == (outputs, inputs)
    {
        return Some(values.clone());
    }
    let [_, height, width] = graph.input_shape;
    let positions = param.name == vit::POSITIONS && shape.get(2) == param.shape.get(2);
    let grid = [height / vit::PATCH, width / vit::PATCH];
    positions
        .then(|| vit::resize_positions(shape, values, grid))
        .flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::weights::tests::small;

    /// Renames every tensor; all must be found again.
    fn loads_renamed(scheme: &str, rename: impl Fn(&str) -> String, left_over: &[&str]) {
        let (graph, weights) = small();
        let mut renamed: Weights = Weights {
            tensors: weights
                .tensors
                .into_iter()
                .map(|(name, tensor)| (rename(&name), tensor))
                .collect(),
        };
        for name in left_over {
            renamed
                .tensors
                .insert((*name).into(), (vec![3], vec![0.0; 3]));
        }
        let report = match_names(&graph, &renamed);
        assert_eq!(report.missing, [""; 0], "{scheme}");
        assert_eq!(report.unused, left_over, "{scheme}");
        assert_eq!(report.loaded.len(), graph.params.len(), "{scheme}");
        assert_eq!(report.reshaped_refused, [""; 0], "{scheme}");
    }

    #[test]
    fn torchvision_timm_and_torchreid() {
        loads_renamed(
            "torchvision, timm",
            str::to_string,
            &["fc.bias", "fc.weight"],
        );
        loads_renamed(
            "torchreid",
            |n| format!("module.{n}"),
            &["module.classifier.bias", "module.classifier.weight"],
        );
    }

    #[test]
    fn fast_reid() {
        let rename = |n: &str| match n.strip_prefix("neck.") {
            Some(rest) => format!("heads.bottleneck.0.{rest}"),
            None => format!("backbone.{n}"),
        };
        loads_renamed(
            "fast-reid",
            rename,
            &["heads.weight", "pixel_mean", "pixel_std"],
        );
    }

    #[test]
    fn bag_of_tricks() {
        let rename = |n: &str| match n.strip_prefix("neck.") {
            Some(rest) => format!("bottleneck.{rest}"),
            None => format!("base.{n}"),
        };
        loads_renamed("BoT", rename, &["classifier.weight"]);
    }

    #[test]
    fn open_reid_and_its_descendants() {
        for (scheme, first) in [("SpCL, Cluster-Contrast", 3), ("with the ReLU", 4)] {
            let rename = |n: &str| {
                let (module, rest) = n.split_once('.').unwrap();
                let number = match module {
                    "neck" => return format!("module.feat_bn.{rest}"),
                    "conv1" => 0,
                    "bn1" => 1,
                    layer => {
                        layer
                            .strip_prefix("layer")
                            .unwrap()
                            .parse::<usize>()
                            .unwrap()
                            + first
                            - 1
                    }
                };
                format!("module.base.{number}.{rest}")
            };
            loads_renamed(scheme, rename, &["module.classifier.weight"]);
        }
    }

    #[test]
    fn moco_and_dino() {
        loads_renamed(
            "MoCo",
            |n| format!("module.encoder_q.{n}"),
            &["module.queue"],
        );
        loads_renamed("DINO", |n| format!("backbone.{n}"), &["head.mlp.0.weight"]);
        loads_renamed(
            "a student and its wrapper",
            |n| format!("student.model.encoder.{n}"),
            &[],
        );
    }

    #[test]
    fn a_transformer_by_its_teachers_names_and_for_other_pictures() {
        let config = |height, input_width| crate::backbones::BackboneConfig {
            backbone: crate::backbones::Backbone::VitSmall16,
            width: 4,
            height,
            input_width,
            ..Default::default()
        };
        let file = config(224, 224).build().unwrap();
        let named = file.params.iter().map(|p| {
            let n = p.shape.iter().product();
            let value = (p.shape.clone(), vec![0.25; n]);
            (format!("teacher.backbone.{}", p.name), value)
        });
        let mut weights = Weights {
            tensors: named.filter(|(name, _)| !name.contains("neck")).collect(),
        };
        let left_over = "teacher.head.mlp.0.weight";
        let head = (vec![3], vec![0.0; 3]);
        weights.tensors.insert(left_over.into(), head);
        let graph = config(256, 128).build().unwrap();
        let (selected, report) = select(&graph, &weights);
        assert_eq!(report.reshaped_refused, [""; 0]);
        assert_eq!(report.unused, [left_over]);
        assert!(report.missing.iter().all(|name| name.starts_with("neck.")));
        let (shape, values) = &selected.tensors["pos_embed"];
        assert_eq!(shape, &[1, 1 + 16 * 8, 24]);
        assert!(values.iter().all(|v| (v - 0.25).abs() < 1e-6));
        // Positions whose grid nobody knows are refused with both shapes.
        let odd = (vec![1, 1 + 7, 24], vec![0.0; 8 * 24]);
        let name = "teacher.backbone.pos_embed".to_owned();
        weights.tensors.insert(name, odd);
        let (_, report) = select(&graph, &weights);
        let refused = "pos_embed: the file has [1, 8, 24], the graph wants [1, 129, 24]";
        assert_eq!(report.reshaped_refused, [refused]);
    }

    #[test]
    fn gem_has_its_exponent_under_other_names() {
        for name in ["heads.pool_layer.p", "module.gap.p", "global_pool.p"] {
            assert_eq!(canonical(name, 0), "pool.p");
        }
    }

    #[test]
    fn prefixes_missing_unused_and_reshaped() {
        let (graph, mut weights) = small();
        let conv1 = weights.tensors.remove("conv1.weight").unwrap();
        weights
            .tensors
            .insert("module.backbone.conv1.weight".into(), conv1);
        weights.tensors.remove("bn1.bias");
        weights
            .tensors
            .insert("bn1.weight".into(), (vec![9], vec![0.0; 9]));
        weights
            .tensors
            .insert("fc.bias".into(), (vec![3], vec![0.0; 3]));
        weights.tensors.insert(
            "layer1.0.bn1.num_batches_tracked".into(),
            (vec![], vec![1.0]),
        );
        let report = match_names(&graph, &weights);
        assert!(report.loaded.contains(&"conv1.weight".to_string()));
        assert_eq!(report.missing, ["bn1.bias"]);
        assert_eq!(report.unused, ["fc.bias"]);
        assert_eq!(
            report.reshaped_refused,
            ["bn1.weight: the file has [9], the graph wants [4]"]
        );
        assert_eq!(report.loaded.len() + 2, graph.params.len());
    }

    #[test]
    fn an_exact_name_wins_over_a_prefixed_one() {
        let (graph, mut weights) = small();
        let shape = weights.tensors["conv1.weight"].0.clone();
        let n = shape.iter().product();
        weights
            .tensors
            .insert("base.conv1.weight".into(), (shape, vec![9.0; n]));
        let (selected, report) = select(&graph, &weights);
        assert_eq!(selected.tensors["conv1.weight"].1[0], 0.5);
        assert_eq!(report.unused, ["base.conv1.weight"]);
    }
}
