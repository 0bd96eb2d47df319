//! Every operator above the driver on the emulator, against its twin on the processor.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use reid_gpu_emulator::{Emulator, twins};
use reid_train::nn::gpu::{Gpu, Precision, Settings};

fn hold(precision: Precision) {
    let emulator = Arc::new(Emulator::new(Settings {
        precision,
        deterministic: true,
    }));
    // A shuffled order of threads, which no result may depend on.
    emulator.set_order(3);
    // So little room that columns go image by image.
    let comparisons = twins::compare(&Gpu::new(emulator).with_room(4096)).unwrap();
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
}

#[test]
fn in_f32() {
    hold(Precision::F32);
}

#[test]
fn in_bf16() {
    hold(Precision::Bf16);
}
