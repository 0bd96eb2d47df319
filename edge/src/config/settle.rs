//! What contradicts something else, or the machine: reported, and put right so that the rest can still be tried.

use std::path::PathBuf;

use reid_models::runtime::{Backend, Provider};

use super::camera::is_name;
use super::mistakes::Mistakes;
use super::{DetectorKind, EdgeConfig, EmbedderKind, Precision};
use crate::associate::{AssociateConfig, AssociateError};
use crate::serve::ServeConfig;

/// Looks at everything but what a key says for itself; cameras that cannot be opened are left out afterwards.
pub(super) fn settle(config: &mut EdgeConfig, mistakes: &mut Mistakes) {
    let declared: Vec<String> = config.cameras.iter().map(|c| c.name.clone()).collect();
    cameras(config, mistakes);
    let names: Vec<String> = config.cameras.iter().map(|c| c.name.clone()).collect();
    models(config, mistakes);
    tracker(config, mistakes);
    associate(config, &declared, &names, mistakes);
    page(config, mistakes);
}

fn cameras(config: &mut EdgeConfig, mistakes: &mut Mistakes) {
    if config.cameras.is_empty() && !mistakes.about("camera") {
        mistakes.missing(
            "camera",
            "write at least one [[camera]] with name and source",
        );
    }
    let base = config.base.clone();
    let mut usable = Vec::new();
    let mut earlier: Vec<String> = Vec::new();
    for (i, camera) in config.cameras.iter_mut().enumerate() {
        let at = format!("camera[{i}]");
        usable.push(camera.resolve(&at, &base, mistakes));
        camera.settle(&at, mistakes);
        let name = format!("{at}.name");
        if !mistakes.about(&name)
            && let Some(other) = earlier.iter().position(|n| *n == camera.name)
        {
            let line = match mistakes.line(&format!("camera[{other}].name")) {
                Some(line) => format!(" (line {line})"),
                None => String::new(),
            };
            mistakes.at(
                name.clone(),
                format!("camera[{other}]{line} has this name, too: rename one"),
            );
        }
        earlier.push(camera.name.clone());
        if mistakes.about(&name) {
            camera.name = format!("camera-{}", i + 1);
        }
    }
    let mut keep = usable.into_iter();
    config.cameras.retain(|_| keep.next().unwrap_or(false));
}

/// What both sections of models have.
struct Model<'a> {
    section: &'static str,
    /// Whether the kind is one with a model.
    wanted: bool,
    otherwise: &'static str,
    model: &'a mut Option<PathBuf>,
    backend: Backend,
    providers: &'a mut Vec<Provider>,
    precision: &'a mut Precision,
    calibration: &'a mut Option<PathBuf>,
}

fn models(config: &mut EdgeConfig, mistakes: &mut Mistakes) {
    let (d, e) = (&mut config.detector, &mut config.embedder);
    if mistakes.about("detector.kind") && d.model.is_some() {
        d.kind = DetectorKind::Onnx;
    }
    let both = [
        Model {
            section: "detector",
            wanted: d.kind == DetectorKind::Onnx,
            otherwise: "kind = \"motion\" needs none",
            model: &mut d.model,
            backend: d.backend,
            providers: &mut d.providers,
            precision: &mut d.precision,
            calibration: &mut d.calibration,
        },
        Model {
            section: "embedder",
            wanted: e.kind == EmbedderKind::Onnx,
            otherwise: "kind = \"histogram\" needs none",
            model: &mut e.model,
            backend: e.backend,
            providers: &mut e.providers,
            precision: &mut e.precision,
            calibration: &mut e.calibration,
        },
    ];
    for model in both {
        model.settle(mistakes);
    }
}

impl Model<'_> {
    fn settle(self, mistakes: &mut Mistakes) {
        let key = |name: &str| format!("{}.{name}", self.section);
        let kind_is_known = !mistakes.about(&key("kind"));
        let otherwise = self.otherwise;
        match &self.model {
            None if self.wanted && kind_is_known && !mistakes.about(&key("model")) => {
                mistakes.missing(
                    key("model"),
                    format!("is missing: kind = \"onnx\" needs an ONNX file; {otherwise}"),
                );
            }
            Some(_) if !self.wanted => {
                *self.model = None;
                if kind_is_known {
                    mistakes.at(
                        key("model"),
                        format!("{otherwise}: remove it, or write kind = \"onnx\""),
                    );
                }
            }
            Some(path) if !path.is_file() => {
                *self.model = None;
                mistakes.at(
                    key("model"),
                    "there is no such file (the path is relative to the configuration's folder)",
                );
            }
            _ => {}
        }
        if let Some(path) = &self.calibration
            && !path.is_file()
        {
            *self.calibration = None;
            mistakes.at(
                key("calibration"),
                "there is no such file (the path is relative to the configuration's folder)",
            );
        }
        // What is asked for and would be passed over in silence.
        let doubtful = ["backend", "providers", "precision"].map(|k| mistakes.about(&key(k)));
        if doubtful.contains(&true) {
            return;
        }
        if self.calibration.is_some() && *self.precision != Precision::Int8 {
            *self.calibration = None;
            mistakes.at(key("calibration"), "belongs to precision = \"int8\"");
        }
        if self.backend == Backend::Tract && self.providers.iter().any(|p| *p != Provider::Cpu) {
            *self.providers = vec![Provider::Cpu];
            mistakes.at(
                key("providers"),
                "backend = \"tract\" runs on the processor: write backend = \"onnxruntime\", or providers = [\"cpu\"]",
            );
        } else if *self.precision != Precision::Fp32
            && !self.providers.contains(&Provider::TensorRt)
        {
            *self.precision = Precision::Fp32;
            mistakes.at(
                key("precision"),
                "only TensorRT chooses its precision: write \"tensorrt\" first among providers, or leave it out",
            );
        }
    }
}

fn tracker(config: &mut EdgeConfig, mistakes: &mut Mistakes) {
    let t = &mut config.tracker;
    if t.low > t.high && !mistakes.about("tracker.low") && !mistakes.about("tracker.high") {
        mistakes.at(
            "tracker.low",
            format!("must not be above tracker.high = {}", t.high),
        );
        t.low = t.high;
    }
}

fn associate(
    config: &mut EdgeConfig,
    declared: &[String],
    names: &[String],
    mistakes: &mut Mistakes,
) {
    let a = &mut config.associate;
    let mut wrong = Vec::new();
    for (i, way) in a.travel.iter().enumerate() {
        let key = |name: &str| format!("associate.travel[{i}].{name}");
        let mut whole = true;
        for (name, value) in [("from", &way.from), ("to", &way.to)] {
            whole &= !mistakes.about(&key(name));
            if !mistakes.about(&key(name)) && !declared.contains(value) {
                let known: Vec<&str> = declared
                    .iter()
                    .map(String::as_str)
                    .filter(|name| is_name(name))
                    .collect();
                mistakes.at(
                    key(name),
                    format!("must name a camera: {}", known.join(", ")),
                );
                whole = false;
            }
        }
        if whole && way.from == way.to {
            mistakes.at(key("to"), "is the same camera as `from`: name another");
            whole = false;
        }
        if !whole || mistakes.about(&key("min_secs")) {
            wrong.push(i);
        }
    }
    let mut number = 0..;
    a.travel.retain(|way| {
        let i = number.next().unwrap_or(0);
        !wrong.contains(&i) && names.contains(&way.from) && names.contains(&way.to)
    });
    let either = |b: &str, m: &Mistakes| m.about("associate.match") || m.about(b);
    if let (Some(mint), Some(bar)) = (a.mint, a.match_score)
        && mint > bar
        && !either("associate.mint", mistakes)
    {
        a.mint = None;
        mistakes.at(
            "associate.mint",
            format!("must not be above associate.match = {bar}"),
        );
    }
    if let (Some(enrich), Some(bar)) = (a.enrich, a.match_score)
        && enrich < bar
        && !either("associate.enrich", mistakes)
    {
        a.enrich = None;
        mistakes.at(
            "associate.enrich",
            format!("must not be below associate.match = {bar}"),
        );
    }
    // Whatever the association refuses besides.
    if let Err(e) = a.check(names) {
        *a = AssociateConfig::default();
        match e {
            AssociateError::Config { key, remedy, .. } => {
                mistakes.at(format!("associate.{key}"), remedy);
            }
            other => mistakes.at("associate", other.to_string()),
        }
    }
}

fn page(config: &mut EdgeConfig, mistakes: &mut Mistakes) {
    let serve = &mut config.serve;
    let listen = "serve.listen";
    match serve.listen.parse::<std::net::SocketAddr>() {
        Err(_) => {
            mistakes.at(
                listen,
                "must be an address and a port, like \"127.0.0.1:8080\"",
            );
            // Not kept: it may be anything.
            serve.listen = ServeConfig::default().listen;
            serve.enabled = false;
        }
        Ok(address) if serve.enabled && !address.ip().is_loopback() => {
            if serve.token_file.is_none() && !mistakes.about("serve.token_file") {
                mistakes.at(
                    listen,
                    "can be reached by others: set serve.token_file to a file with a secret of at least 16 characters, or listen on 127.0.0.1",
                );
                serve.enabled = false;
            }
        }
        Ok(_) => {}
    }
}
