//! Every operator above the driver on the emulator, against its twin on the processor.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use reid_gpu_emulator::{Emulator, kernels, twins};
use reid_train::nn::gpu::{Gpu, Precision, Settings};

/// Returns the kernels that ran.
fn hold(precision: Precision) -> BTreeSet<String> {
    let emulator = Arc::new(Emulator::new(Settings {
        precision,
        deterministic: true,
    }));
    // A shuffled order of threads, which no result may depend on.
    emulator.set_order(3);
    // So little room that columns go image by image.
    let gpu = Gpu::new(emulator.clone()).with_room(4096);
    let comparisons = twins::compare(&gpu).unwrap();
    assert!(comparisons.len() > 30);
    let table: Vec<String> = comparisons
        .iter()
        .map(|c| {
            let verdict = if c.holds() { "" } else { "  TOO FAR" };
            format!(
                "{:<40} {:.1e} of {:.0e}{verdict}",
                c.operator, c.error, c.tolerance
            )
        })
        .collect();
    println!("{}", table.join("\n"));
    assert!(
        comparisons.iter().all(twins::Comparison::holds),
        "{}",
        table.join("\n")
    );
    emulator.launched()
}

/// `reid-gpu check` runs the same cases on a GPU, so there, too, no kernel is left out.
#[test]
fn in_f32_and_bf16_with_every_kernel() {
    let mut launched = hold(Precision::F32);
    launched.extend(hold(Precision::Bf16));
    let forgotten: Vec<&String> = kernels()
        .keys()
        .filter(|name| !name.starts_with("fault_") && !launched.contains(*name))
        .collect();
    // Comes after a library's filter gradient, and the emulator has no library; on a GPU with cuDNN it runs.
    assert_eq!(forgotten, ["unpack_filters_bf16"]);
}
