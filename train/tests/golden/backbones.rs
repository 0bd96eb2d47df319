//! Backbones beside the plain ResNet, as timm has them.

use super::*;
use candle_core::{DType, Tensor};
use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::weights::Weights;
use reid_train::nn::{self, Mode, Net};

const BOTH: [&str; 2] = ["pooled", "neck"];

/// Loads what is under `NAME.weight`, compares both ways forward, and every gradient.
fn as_timm(name: &str, backbone: Backbone, tolerance: f32) {
    let golden = Golden::open("backbones");
    let config = BackboneConfig {
        backbone,
        width: 4,
        last_stride: 2,
        height: 64,
        input_width: 32,
        ..Default::default()
    };
    let mut net = Net::new(config.build().unwrap(), 3, &DEVICE).unwrap();
    let mut weights = Weights::default();
    let prefix = format!("{name}.weight.");
    for (key, tensor) in &golden.0 {
        if let Some(key) = key.strip_prefix(&prefix) {
            let value = (tensor.dims().to_vec(), flat(tensor));
            weights.tensors.insert(key.into(), value);
        }
    }
    let report = net.load(&weights).unwrap();
    assert_eq!((report.missing, report.unused), (vec![], vec![]), "{name}");
    assert_eq!(report.reshaped_refused, [""; 0], "{name}");

    let images = golden.var(&format!("{name}.input"));
    let folded = net.forward_no_grad(&images, Mode::Eval, &BOTH).unwrap();
    let outputs = net.forward(&images, Mode::Train, &BOTH).unwrap();
    let mut loss = Tensor::zeros((), DType::F32, &DEVICE).unwrap();
    for role in BOTH {
        let get = |kind: &str| golden.get(&format!("{name}.{kind}.{role}"));
        close(
            &format!("{name} eval {role}"),
            &folded[role],
            get("eval"),
            tolerance,
        );
        close(
            &format!("{name} {role}"),
            &outputs[role],
            get("train"),
            tolerance,
        );
        let term = (&outputs[role] * get("cotangent")).unwrap();
        loss = (loss + term.sum_all().unwrap()).unwrap();
    }
    let grads = nn::backward(&loss).unwrap();
    let of_input = golden.get(&format!("{name}.grad_input"));
    close(name, grads.get(&images).unwrap(), of_input, 2e-4);
    for (parameter, var) in net.trainable() {
        let want = golden.get(&format!("{name}.grad.{parameter}"));
        let want = want.reshape(var.dims()).unwrap();
        close(&parameter, grads.get(&var).unwrap(), &want, 2e-4);
    }
}

#[test]
fn vit_as_timm() {
    as_timm("vit", Backbone::VitSmall16, 2e-5);
}

#[test]
fn squeeze_and_excitation_as_timm() {
    as_timm("se", Backbone::SeResnet18, 2e-5);
}

#[test]
fn positions_as_torch_interpolates_them() {
    let golden = Golden::open("backbones");
    let old = golden.get("vit.positions.old");
    let resized = reid_models::backbones::vit::resize_positions(old.dims(), &flat(old), [4, 2]);
    let new = golden.get("vit.positions.new");
    let resized = Tensor::from_vec(resized.unwrap(), new.dims(), &DEVICE).unwrap();
    close("positions", &resized, new, 1e-6);
}
