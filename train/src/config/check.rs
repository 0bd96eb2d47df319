//! Keys and values of a configuration: known and in range.

use super::RunConfig;

/// Reads a configuration; says which key or value is wrong.
pub(super) fn check(table: toml::Table) -> Result<RunConfig, String> {
    let config: RunConfig = table
        .try_into()
        .map_err(|e: toml::de::Error| e.to_string().trim_end().to_string())?;
    let t = &config.train;
    let at_least = |key: &str, value: usize, low: usize| {
        if value >= low {
            Ok(())
        } else {
            Err(format!("{key} must be at least {low}, got {value}"))
        }
    };
    at_least("train.epochs", t.epochs, 1)?;
    at_least("train.iterations", t.iterations, 1)?;
    at_least("train.identities", t.identities, 2)?;
    at_least("train.instances", t.instances, 2)?;
    at_least("cluster.k1", config.cluster.k1, 2)?;
    at_least("cluster.k2", config.cluster.k2, 1)?;
    at_least("cluster.min_samples", config.cluster.min_samples, 1)?;
    let within = |key: &str, value: f64, low: f64, high: f64| {
        if value.is_finite() && (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(format!(
                "{key} must be between {low} and {high}, got {value}"
            ))
        }
    };
    let l = &config.loss;
    let a = &config.augment;
    within("train.lr", t.lr, 1e-9, 10.0)?;
    within("train.weight_decay", t.weight_decay, 0.0, 1.0)?;
    within("adversary.lr", config.adversary.lr, 0.0, 10.0)?;
    within("train.warmup_factor", t.warmup_factor, 0.0, 1.0)?;
    within("train.gamma", t.gamma, 0.0, 1.0)?;
    within("train.ema", t.ema, 0.0, 1.0)?;
    within("cluster.eps", config.cluster.eps.into(), 1e-6, 1.0)?;
    within("loss.smoothing", l.smoothing, 0.0, 0.9)?;
    within("loss.dropout", l.dropout, 0.0, 0.9)?;
    within("memory.momentum", config.memory.momentum, 0.0, 1.0)?;
    within("cluster.rho", config.cluster.rho, 0.0, 0.5)?;
    let share = config.cluster.source_weight;
    within("cluster.source_weight", share.into(), 0.0, 0.9)?;
    at_least("model.part_width", config.model.part_width, 1)?;
    at_least("cluster.clusters", config.cluster.clusters, 2)?;
    at_least("adversary.hidden", config.adversary.hidden, 1)?;
    for (key, value) in [
        ("loss.proxy_temperature", l.proxy_temperature),
        ("loss.hard_temperature", l.hard_temperature),
        ("loss.soft_temperature", l.soft_temperature),
        ("loss.cross_temperature", l.cross_temperature),
        ("memory.temperature", config.memory.temperature),
    ] {
        within(key, value, 1e-3, 100.0)?;
    }
    for (key, value) in [
        ("loss.hard_weight", l.hard_weight),
        ("loss.soft_weight", l.soft_weight),
        ("loss.cross_weight", l.cross_weight),
        ("loss.identity_weight", l.identity_weight),
        ("loss.soft_identity_weight", l.soft_identity_weight),
        ("loss.triplet_weight", l.triplet_weight),
        ("loss.triplet_margin", l.triplet_margin),
        ("loss.soft_triplet_weight", l.soft_triplet_weight),
        ("loss.centre_weight", l.centre_weight),
        ("adversary.weight", config.adversary.weight),
    ] {
        within(key, value, 0.0, 1e6)?;
    }
    for (key, value) in [
        ("augment.flip", a.flip),
        ("augment.blur", a.blur),
        ("augment.erasing", a.erasing),
        ("augment.jitter", a.jitter),
    ] {
        within(key, value, 0.0, 1.0)?;
    }
    Ok(config)
}
