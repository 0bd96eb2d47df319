//! Parameter names against torchvision's.

use std::collections::BTreeMap;

use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::weights::{Weights, match_names};

// golden/torchvision_names.json: made by torchvision_names.py beside it.
fn torchvision() -> BTreeMap<String, BTreeMap<String, Vec<usize>>> {
    serde_json::from_str(include_str!("../golden/torchvision_names.json")).unwrap()
}

#[test]
fn a_torchvision_checkpoint_loads_by_name() {
    for (name, backbone) in [
        ("resnet18", Backbone::Resnet18),
        ("resnet50", Backbone::Resnet50),
    ] {
        let graph = BackboneConfig {
            backbone,
            ..Default::default()
        }
        .build()
        .unwrap();
        let mut weights = Weights::default();
        for (tensor, shape) in &torchvision()[name] {
            let n = shape.iter().product();
            weights
                .tensors
                .insert(tensor.clone(), (shape.clone(), vec![0.0; n]));
        }
        let report = match_names(&graph, &weights);
        assert_eq!(report.unused, ["fc.bias", "fc.weight"], "{name}");
        assert_eq!(
            report.missing,
            [
                "neck.bias",
                "neck.running_mean",
                "neck.running_var",
                "neck.weight"
            ],
            "{name}"
        );
        assert!(report.reshaped_refused.is_empty(), "{report:?}");
        assert_eq!(report.loaded.len(), graph.params.len() - 4);
    }
}
