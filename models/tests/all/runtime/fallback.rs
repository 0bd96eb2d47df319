//! Never a silent fallback: what was asked for runs, or it is an error, or the status says why not.

use reid_models::runtime::proto::DataType;
use reid_models::runtime::{Backend, Precision, Provider, RuntimeConfig, RuntimeError, State};

use super::{SIZE, card, onnxruntime, opened};
use crate::tiny_onnx::Tiny;

fn tiny(folder: &std::path::Path) -> std::path::PathBuf {
    Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .pooled()
        .write(folder, &[0, 3], Some(&card(3)))
}

/// Whether the library has this provider and a GPU for it, so that nothing here can fail.
fn runs(path: &std::path::Path, config: &RuntimeConfig, provider: Provider) -> bool {
    let config = RuntimeConfig {
        providers: vec![provider, Provider::Cpu],
        ..config.clone()
    };
    opened(path, &config).is_ok()
}

#[test]
fn a_provider_that_cannot_start_is_an_error_that_names_it() {
    let test = "a_provider_that_cannot_start_is_an_error_that_names_it";
    let Some(config) = onnxruntime(test) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    for provider in [Provider::TensorRt, Provider::Cuda] {
        if runs(&path, &config, provider) {
            println!("skipped: {test} with {provider} (it starts here)");
            continue;
        }
        for providers in [vec![provider], vec![provider, Provider::Cpu]] {
            let asking = RuntimeConfig {
                providers,
                cache: Some(dir.path().join("cache")),
                ..config.clone()
            };
            let err = match opened(&path, &asking) {
                Ok(session) => panic!("{}", session.description()),
                Err(err) => err,
            };
            assert!(
                matches!(&err, RuntimeError::Provider { provider: p, .. } if *p == provider),
                "{err}"
            );
            let text = err.to_string();
            assert!(
                text.contains("tiny.onnx") && text.contains("fallback = true"),
                "{text}"
            );
        }
    }
}

#[test]
fn an_allowed_fallback_runs_and_says_why() {
    let test = "an_allowed_fallback_runs_and_says_why";
    let Some(config) = onnxruntime(test) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    if runs(&path, &config, Provider::TensorRt) || runs(&path, &config, Provider::Cuda) {
        println!("skipped: {test} (a GPU is here)");
        return;
    }
    let (tensorrt, cuda, cpu) = (Provider::TensorRt, Provider::Cuda, Provider::Cpu);
    for providers in [
        vec![tensorrt],
        vec![tensorrt, cpu],
        vec![cuda, cpu],
        vec![tensorrt, cuda, cpu],
    ] {
        for cache in [None, Some(dir.path().join("cache"))] {
            let asking = RuntimeConfig {
                precision: match providers[0] {
                    Provider::TensorRt => Precision::Fp16,
                    _ => Precision::Fp32,
                },
                providers: providers.clone(),
                fallback: true,
                cache,
                ..config.clone()
            };
            let mut session = opened(&path, &asking).unwrap();
            let status = session.status();
            assert_eq!(status.engine, Backend::OnnxRuntime);
            assert_eq!(status.providers_asked, providers);
            assert_eq!(status.provider_running, cpu);
            assert_eq!(
                status.precision,
                Precision::Fp32,
                "the processor converts nothing"
            );
            assert_eq!(status.state, State::Ready);
            assert!(status.fallback);
            let reason = status.reason.clone().unwrap();
            for provider in providers.iter().filter(|p| **p != cpu) {
                assert!(reason.contains(&format!("{provider}: ")), "{reason}");
            }
            assert!(
                session.description().contains("on cpu"),
                "{}",
                session.description()
            );
            // What /healthz shows.
            let json = serde_json::to_value(&status).unwrap();
            assert_eq!(json["provider_running"], "cpu");
            assert_eq!(json["state"], "ready");
            assert_eq!(json["fallback"], true);
            let input = vec![2.0; 3 * SIZE * SIZE];
            assert_eq!(session.run(1, &input).unwrap()[0].1.data, [2.0; 3]);
        }
    }
}

#[test]
fn what_runs_as_asked_is_no_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    for config in super::engines("what_runs_as_asked_is_no_fallback") {
        for fallback in [false, true] {
            for providers in [vec![], vec![Provider::Cpu]] {
                let config = RuntimeConfig {
                    fallback,
                    providers,
                    ..config.clone()
                };
                let status = opened(&path, &config).unwrap().status();
                assert_eq!(status.engine, config.backend);
                assert_eq!(status.provider_running, Provider::Cpu);
                assert!(!status.fallback && status.reason.is_none() && !status.mixed);
            }
        }
    }
}

#[test]
fn a_broken_model_is_not_a_provider_that_fails() {
    let Some(config) = onnxruntime("a_broken_model_is_not_a_provider_that_fails") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .op("NoSuchOperator", &[])
        .write(dir.path(), &[0, 3], Some(&card(3)));
    for cache in [None, Some(dir.path().join("cache"))] {
        let config = RuntimeConfig {
            providers: vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu],
            fallback: true,
            cache,
            ..config.clone()
        };
        let err = match opened(&path, &config) {
            Ok(session) => panic!("{}", session.description()),
            Err(err) => err,
        };
        assert!(matches!(err, RuntimeError::Load { .. }), "{err}");
        assert!(err.to_string().contains("NoSuchOperator"), "{err}");
    }
}

#[test]
fn tract_is_no_silent_replacement_for_a_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let mut config = RuntimeConfig {
        backend: Backend::Tract,
        providers: vec![Provider::Cuda, Provider::Cpu],
        ..Default::default()
    };
    let err = match opened(&path, &config) {
        Ok(session) => panic!("{}", session.description()),
        Err(err) => err.to_string(),
    };
    assert!(
        err.contains("cuda") && err.contains("processor only"),
        "{err}"
    );
    config.fallback = true;
    let status = opened(&path, &config).unwrap().status();
    assert!(status.fallback && status.reason.unwrap().contains("cuda"));
}

#[test]
fn a_precision_that_nobody_can_give_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let refused = |config: RuntimeConfig| match opened(&path, &config) {
        Ok(session) => panic!("{}", session.description()),
        Err(err) => err.to_string(),
    };
    for providers in [
        vec![],
        vec![Provider::Cpu],
        vec![Provider::Cuda, Provider::Cpu],
    ] {
        let err = refused(RuntimeConfig {
            precision: Precision::Fp16,
            providers,
            fallback: true,
            ..Default::default()
        });
        assert!(
            err.contains("precision = fp16") && err.contains("tensorrt"),
            "{err}"
        );
    }
    let Some(config) = onnxruntime("a_precision_that_nobody_can_give_is_an_error") else {
        return;
    };
    let int8 = RuntimeConfig {
        precision: Precision::Int8,
        providers: vec![Provider::TensorRt, Provider::Cpu],
        cache: Some(dir.path().join("cache")),
        fallback: true,
        ..config
    };
    let err = refused(int8.clone());
    assert!(
        err.contains("tiny.onnx") && err.contains("QuantizeLinear"),
        "{err}"
    );
    let err = refused(RuntimeConfig {
        calibration: Some("/nowhere/table".into()),
        ..int8
    });
    assert!(err.contains("calibration = /nowhere/table"), "{err}");
}

#[test]
fn a_file_that_quantises_itself_is_known() {
    use reid_models::runtime::OnnxFile;
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    assert!(!OnnxFile::read(&path).unwrap().quantized);
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .op("QuantizeLinear", &[])
        .op("DequantizeLinear", &[])
        .write(dir.path(), &[0, 3], Some(&card(3)));
    let file = OnnxFile::read(&path).unwrap();
    assert!(file.quantized && !file.external);
}
