//! Every method in places unlike the benchmark: pictures in another order, one camera, more cameras than pictures of a person in a
//! batch, people seen once, and clusterings that find another number of people every time.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use candle_core::{Device, Tensor};
use reid_models::distance::normalize;
use reid_train::config::{self, RunConfig};
use reid_train::data::Sample;
use reid_train::data::sampler::PkSampler;
use reid_train::methods::{self, Batch, Extract, Features, METHODS, Method};
use reid_train::nn::{self, Mode, Net, init};
use reid_train::optimisers::Optimisers;

const HEIGHT: usize = 64;
const WIDTH: usize = 32;
const LEN: usize = 3 * HEIGHT * WIDTH;

/// Pictures in memory: of each person a pattern, of each picture some noise, of each camera a tint.
#[derive(Clone)]
struct Place {
    samples: Vec<Sample>,
    pictures: Vec<Vec<f32>>,
}

impl Place {
    /// `seen[p]` pictures of person `p`, going round `cameras` cameras.
    fn new(seed: u64, seen: &[usize], cameras: u32) -> Self {
        let noise =
            |name: String, size: f32| init::normal(&mut init::stream(seed, &name), size, LEN);
        let mut place = Place {
            samples: Vec::new(),
            pictures: Vec::new(),
        };
        for (person, &count) in seen.iter().enumerate() {
            let pattern = noise(format!("person {person}"), 1.0);
            for i in 0..count {
                let camera = (person + i) as u32 % cameras;
                let own = noise(format!("picture {person} {i}"), 0.3);
                let both = pattern.iter().zip(own);
                place
                    .pictures
                    .push(both.map(|(a, b)| a + b + 0.1 * camera as f32).collect());
                place.samples.push(Sample {
                    path: format!("{person}_{i}.jpg").into(),
                    pid: person as i64,
                    camera,
                    tracklet: None,
                    time: None,
                });
            }
        }
        place
    }

    /// The same in another order: `order[new]` is the old place.
    fn ordered(&self, order: &[usize]) -> Self {
        Place {
            samples: order.iter().map(|&i| self.samples[i].clone()).collect(),
            pictures: order.iter().map(|&i| self.pictures[i].clone()).collect(),
        }
    }

    fn images(&self, indices: &[usize]) -> Tensor {
        let all: Vec<f32> = indices
            .iter()
            .flat_map(|&i| self.pictures[i].clone())
            .collect();
        Tensor::from_vec(all, (indices.len(), 3, HEIGHT, WIDTH), &Device::Cpu).unwrap()
    }
}

impl Extract for Place {
    fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn outputs(&mut self, net: &Net, roles: &[&str], _flip: bool) -> Result<Vec<Features>> {
        let everything: Vec<usize> = (0..self.samples.len()).collect();
        let outputs = net.forward_no_grad(&self.images(&everything), Mode::Eval, roles)?;
        let features = roles.iter().map(|role| {
            let width = outputs[*role].dim(1)?;
            let mut rows: Vec<f32> = outputs[*role].flatten_all()?.to_vec1()?;
            for row in rows.chunks_exact_mut(width) {
                normalize(row)?;
            }
            Ok(Features {
                rows,
                width,
                missing: Vec::new(),
            })
        });
        features.collect()
    }

    fn source_outputs(&mut self, _: &Net, _: &[&str], _: bool) -> Result<Option<Vec<Features>>> {
        Ok(None)
    }

    fn truth(&self) -> (Vec<Option<u32>>, usize) {
        // In order of appearance, as a data set's own numbers are by name: another order has other numbers.
        let mut known: Vec<i64> = Vec::new();
        let labels = self.samples.iter().map(|s| {
            let place = known.iter().position(|k| *k == s.pid);
            Some(place.unwrap_or_else(|| {
                known.push(s.pid);
                known.len() - 1
            }) as u32)
        });
        let labels = labels.collect();
        (labels, known.len())
    }
}

/// Every small preset with a network that runs in no time.
fn configs(more: &[&str]) -> Vec<(&'static str, RunConfig)> {
    let small = METHODS.iter().flat_map(|about| {
        let presets = about.presets.iter().filter(|p| p.ends_with("_small"));
        presets.map(move |preset| (about.name, *preset))
    });
    let sets = [
        "model.init=random",
        "model.init2=\"\"",
        "model.width=4",
        "model.size=32x64",
        "model.part_width=8",
        "train.identities=4",
        "train.instances=2",
        "adversary.hidden=8",
        "cluster.k1=6",
        "cluster.k2=2",
        "cluster.rho=0",
        "cluster.eps=0.7",
        "cluster.min_samples=2",
        "loss.cross_negatives=4",
    ];
    small
        .map(|(name, preset)| {
            let sets = sets.iter().chain(more).map(ToString::to_string);
            let sets: Vec<String> = sets.collect();
            let config = config::load(name, Some(preset), None, &sets);
            (preset, config.unwrap_or_else(|e| panic!("{preset}: {e:#}")))
        })
        .collect()
}

fn build(config: &RunConfig) -> Box<dyn Method> {
    let about = methods::find(&config.method).unwrap();
    let graph = config.model.graph().unwrap();
    let (method, _) = (about.build)(config, &Device::Cpu, graph, None).unwrap();
    method
}

/// The batches of an epoch, without augmentation.
fn batches(method: &dyn Method, place: &Place, labels: &[Option<u32>], count: usize) -> Vec<Batch> {
    let cameras: Vec<u32> = place.samples.iter().map(|s| s.camera).collect();
    let strategy = method.sampling().strategy();
    let sampler = PkSampler::new(strategy, 4, 2, labels, &cameras, 5).unwrap();
    sampler
        .epoch(0, count)
        .into_iter()
        .map(|indices| batch(method, place, labels, indices))
        .collect()
}

fn batch(method: &dyn Method, place: &Place, labels: &[Option<u32>], indices: Vec<usize>) -> Batch {
    Batch {
        labels: indices.iter().map(|&i| labels[i].unwrap()).collect(),
        cameras: indices.iter().map(|&i| place.samples[i].camera).collect(),
        views: method
            .views()
            .iter()
            .map(|_| place.images(&indices))
            .collect(),
        beside: None,
        indices,
    }
}

/// One epoch of two steps; returns the number of clusters.
fn epoch(method: &mut dyn Method, place: &mut Place, number: usize, what: &str) -> usize {
    let pseudo = method
        .relabel(number, place)
        .unwrap_or_else(|e| panic!("{what}: {e:#}"));
    let mut optimisers = Optimisers::default();
    optimisers.prepare(method.groups(), 5e-4).unwrap();
    for batch in batches(method, place, &pseudo.labels, 2) {
        let loss = method
            .loss(&batch)
            .unwrap_or_else(|e| panic!("{what}: {e:#}"));
        let total: f32 = loss.total.to_scalar().unwrap();
        assert!(total.is_finite(), "{what}: loss {total}");
        let grads = nn::backward(&loss.total).unwrap();
        for norm in optimisers.step_later(&grads, 3.5e-4).unwrap() {
            assert!(norm.read().unwrap().is_finite(), "{what}: gradient");
        }
        method.after_step(&batch, &loss.kept).unwrap();
    }
    pseudo.clusters
}

#[test]
fn the_order_of_pictures_and_names_of_clusters_do_not_matter() {
    for (preset, config) in configs(&[]) {
        let mut one = Place::new(1, &[5; 8], 3);
        let mut order: Vec<usize> = (0..40).rev().collect();
        order.swap(3, 17);
        let mut two = one.ordered(&order);
        let (mut a, mut b) = (build(&config), build(&config));
        let (labels_a, labels_b) = (
            a.relabel(0, &mut one).unwrap(),
            b.relabel(0, &mut two).unwrap(),
        );
        assert_eq!(labels_a.clusters, labels_b.clusters, "{preset}");
        assert_ne!(labels_a.labels, labels_b.labels, "{preset}: other names");
        let batch_a = batches(&*a, &one, &labels_a.labels, 1).remove(0);
        let place = |old: &usize| order.iter().position(|o| o == old).unwrap();
        let indices = batch_a.indices.iter().map(place).collect();
        let batch_b = batch(&*b, &two, &labels_b.labels, indices);
        let loss = |m: &dyn Method, batch: &Batch| -> f32 {
            m.loss(batch).unwrap().total.to_scalar().unwrap()
        };
        let (x, y) = (loss(&*a, &batch_a), loss(&*b, &batch_b));
        // A classifier that starts at random has other numbers for other names.
        let random = ["scr_small", "supervised_small"].contains(&preset);
        let tolerance = if random { 2e-2 } else { 2e-4 };
        assert!(
            (x - y).abs() <= tolerance * x.abs().max(1.0),
            "{preset}: {x} and {y}"
        );
    }
}

#[test]
fn one_camera_is_enough_or_the_way_without_cameras_is_named() {
    for (preset, config) in configs(&[]) {
        let mut place = Place::new(2, &[5; 8], 1);
        let mut method = build(&config);
        let instead = match preset {
            "canu_mmt_small" | "canu_ssg_small" => "adversary.condition=off",
            "ice_aware_small" => "loss.cross_weight=0",
            _ => {
                assert!(epoch(&mut *method, &mut place, 0, preset) >= 2, "{preset}");
                continue;
            }
        };
        let error = method.relabel(0, &mut place).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("camera") && text.contains(instead), "{text}");
    }
}

#[test]
fn more_cameras_than_pictures_of_a_person_in_a_batch() {
    for (preset, config) in configs(&[]) {
        let mut place = Place::new(3, &[9; 6], 9);
        let mut method = build(&config);
        assert!(epoch(&mut *method, &mut place, 0, preset) >= 2, "{preset}");
    }
}

#[test]
fn people_seen_once_and_another_number_of_clusters_every_epoch() {
    for (preset, config) in configs(&[]) {
        let mut method = build(&config);
        let with_labels = ["scr_small", "supervised_small"].contains(&preset);
        // Forty pictures always: people seen thrice and once, then fewer people and none seen once.
        let places = [[vec![3; 8], vec![1; 16]].concat(), vec![10; 4], vec![20; 2]];
        let counts: Vec<usize> = (0..3)
            .map(|number| {
                // True identities don't change.
                let which = if with_labels { 0 } else { number };
                let mut place = Place::new(4 + which as u64, &places[which], 3);
                epoch(&mut *method, &mut place, number, preset)
            })
            .collect();
        let changed = counts.iter().any(|n| *n != counts[0]);
        assert!(changed || with_labels, "{preset}: {counts:?}");
    }
}
