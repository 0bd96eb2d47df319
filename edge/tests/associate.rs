//! Association on a simulated site: people are directions, cameras bend them, looks add noise.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use reid_edge::associate::{AssociateConfig, Associator, Travel};
use reid_edge::gallery::{Gallery, GalleryConfig};
use reid_edge::types::{Assignment, Decision, IdentityId, Ltrb, Observation, TrackletId};

const WIDTH: usize = 64;

/// Splitmix64: enough randomness for a simulated site, the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

fn memory_gallery() -> Gallery {
    let config = GalleryConfig {
        path: ":memory:".into(),
        ..GalleryConfig::default()
    };
    Gallery::open(&config, Path::new("."), "model", WIDTH).unwrap()
}

fn associator(config: AssociateConfig, cameras: usize) -> Associator {
    let names: Vec<String> = (0..cameras).map(|c| format!("cam{c}")).collect();
    config.check(&names).unwrap();
    Associator::new(config, memory_gallery(), names)
}

fn normal(rng: &mut Random) -> f32 {
    // Sum of uniforms: near enough to normal, and simple.
    ((0..12).map(|_| rng.unit()).sum::<f64>() - 6.0) as f32
}

fn direction(rng: &mut Random) -> Vec<f32> {
    let v: Vec<f32> = (0..WIDTH).map(|_| normal(rng)).collect();
    scaled(&v, 1.0)
}

fn scaled(v: &[f32], length: f32) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter().map(|x| x * length / norm).collect()
}

/// How an embedding sees the world: shares of what is common to all people, of the person, of the camera, of the moment.
#[derive(Clone, Copy)]
struct Lens {
    common: f32,
    person: f32,
    person_in_camera: f32,
    moment: f32,
}

/// People spread well: different people near .0, one person in two cameras near .7.
const GOOD: Lens = Lens {
    common: 0.2,
    person: 1.0,
    person_in_camera: 0.6,
    moment: 0.8,
};
/// Everybody looks alike (.85), one person in two cameras a little more so.
const HISTOGRAM: Lens = Lens {
    common: 1.0,
    person: 0.4,
    person_in_camera: 0.25,
    moment: 0.15,
};

struct Site {
    rng: Random,
    lens: Lens,
    common: Vec<f32>,
    people: Vec<Vec<f32>>,
    bent: HashMap<(usize, usize), Vec<f32>>,
}

impl Site {
    fn new(seed: u64, lens: Lens, people: usize) -> Self {
        let mut rng = Random(seed.wrapping_mul(7_919));
        let common = direction(&mut rng);
        let people = (0..people).map(|_| direction(&mut rng)).collect();
        Site {
            rng,
            lens,
            common,
            people,
            bent: HashMap::new(),
        }
    }

    fn look(&mut self, person: usize, camera: usize) -> Vec<f32> {
        let rng = &mut self.rng;
        let bent = self
            .bent
            .entry((person, camera))
            .or_insert_with(|| direction(rng))
            .clone();
        let moment = direction(&mut self.rng);
        let l = self.lens;
        let sum: Vec<f32> = (0..WIDTH)
            .map(|i| {
                l.common * self.common[i]
                    + l.person * self.people[person][i]
                    + l.person_in_camera * bent[i]
                    + l.moment * moment[i]
            })
            .collect();
        scaled(&sum, 1.0)
    }

    fn observation(
        &mut self,
        tracklet: u64,
        person: usize,
        camera: usize,
        time: f64,
    ) -> Observation {
        let left = person as f32 * 100.0;
        Observation {
            tracklet: TrackletId(tracklet),
            camera,
            time,
            ltrb: Ltrb {
                left,
                top: 0.0,
                right: left + 40.0,
                bottom: 100.0,
            },
            embedding: self.look(person, camera),
            quality: 0.8,
        }
    }
}

/// One walk of one person through one camera.
#[derive(Clone, Copy, Debug)]
struct Visit {
    tracklet: u64,
    person: usize,
    camera: usize,
    start: f64,
    end: f64,
}

/// Plays visits at 4 looks a second; returns the last word about each tracklet and all assignments.
fn play(
    site: &mut Site,
    associator: &mut Associator,
    visits: &[Visit],
) -> (BTreeMap<u64, Decision>, Vec<Assignment>) {
    let until = visits.iter().map(|v| v.end).fold(0.0, f64::max);
    let mut all = Vec::new();
    let mut time = 0.0;
    while time <= until + 1.0 {
        for v in visits {
            if v.start <= time && time <= v.end {
                let o = site.observation(v.tracklet, v.person, v.camera, time);
                associator.observe(o).unwrap();
            }
            if v.end < time && v.end >= time - 0.25 {
                associator.ended(TrackletId(v.tracklet), time).unwrap();
            }
        }
        all.extend(associator.decide(time).unwrap());
        time += 0.25;
    }
    all.extend(associator.finish(time).unwrap());
    let last = visits
        .iter()
        .map(|v| (v.tracklet, associator.decision(TrackletId(v.tracklet))))
        .collect();
    (last, all)
}

/// People walk from camera to camera for a minute, with gaps in between.
fn walks(seed: u64, people: usize, cameras: usize) -> Vec<Visit> {
    let mut rng = Random(seed.wrapping_mul(7_919));
    let mut visits = Vec::new();
    for person in 0..people {
        let mut time = rng.between(0.0, 10.0);
        let mut camera = rng.below(cameras);
        while time < 55.0 {
            let end = time + rng.between(3.0, 7.0);
            visits.push(Visit {
                tracklet: visits.len() as u64,
                person,
                camera,
                start: time,
                end,
            });
            time = end + rng.between(2.0, 6.0);
            camera = (camera + 1 + rng.below(cameras - 1)) % cameras;
        }
    }
    visits
}

/// F1 over pairs of visits: same person against same identity.
fn pair_f1(visits: &[Visit], decisions: &BTreeMap<u64, Decision>) -> f64 {
    let (mut both, mut truth, mut claimed) = (0.0, 0.0, 0.0);
    for (i, a) in visits.iter().enumerate() {
        for b in &visits[i + 1..] {
            let same = a.person == b.person;
            let (x, y) = (
                decisions[&a.tracklet].identity(),
                decisions[&b.tracklet].identity(),
            );
            let linked = x.is_some() && x == y;
            truth += f64::from(u8::from(same));
            claimed += f64::from(u8::from(linked));
            both += f64::from(u8::from(same && linked));
        }
    }
    2.0 * both / f64::max(truth + claimed, 1.0)
}

fn site_f1(lens: Lens, seeds: std::ops::Range<u64>) -> f64 {
    let n = (seeds.end - seeds.start) as f64;
    seeds
        .map(|seed| {
            let visits = walks(seed, 12, 3);
            let mut a = associator(AssociateConfig::default(), 3);
            let (last, _) = play(&mut Site::new(seed, lens, 12), &mut a, &visits);
            pair_f1(&visits, &last)
        })
        .sum::<f64>()
        / n
}

#[test]
fn a_busy_site_is_told_apart_without_any_threshold_given() {
    let f1 = site_f1(GOOD, 0..6);
    assert!(f1 > 0.85, "pairwise F1 {f1}");
}

#[test]
fn bars_adapt_to_an_embedding_that_finds_everybody_alike() {
    // With fixed bars for a spread-out embedding, everybody would become one person here.
    let f1 = site_f1(HISTOGRAM, 0..6);
    assert!(f1 > 0.6, "pairwise F1 {f1}");
}

/// Two people who differ in nothing but the order: one begins as `u` and ends as `v`, the other the other way round.
#[test]
fn parts_in_time_tell_apart_whom_the_mean_confuses() {
    let mut rng = Random(5);
    let (u, v) = (direction(&mut rng), direction(&mut rng));
    let identities = |parts: usize| -> Vec<Option<IdentityId>> {
        let config = AssociateConfig {
            temporal_parts: parts,
            ..given_bars()
        };
        config.check(&[]).unwrap();
        let mut a = associator(config, 1);
        // Twice each, one after the other.
        let people = [[&u, &v], [&v, &u], [&u, &v], [&v, &u]];
        for (tracklet, halves) in people.into_iter().enumerate() {
            let start = 10.0 * tracklet as f64;
            for i in 0..12 {
                let look = Observation {
                    tracklet: TrackletId(tracklet as u64),
                    camera: 0,
                    time: start + 0.25 * f64::from(i),
                    ltrb: Ltrb {
                        left: 0.0,
                        top: 0.0,
                        right: 40.0,
                        bottom: 100.0,
                    },
                    embedding: halves[usize::from(i >= 6)].clone(),
                    quality: 0.8,
                };
                a.observe(look).unwrap();
            }
            let id = TrackletId(tracklet as u64);
            a.ended(id, start + 3.0).unwrap();
            a.decide(start + 3.0).unwrap();
        }
        a.finish(100.0).unwrap();
        let of = |tracklet| a.decision(TrackletId(tracklet)).identity();
        (0..4).map(of).collect()
    };
    let whole = identities(1);
    assert!(
        whole[0].is_some() && whole.iter().all(|id| *id == whole[0]),
        "{whole:?}"
    );
    let parts = identities(2);
    assert!(parts[0].is_some() && parts[1].is_some(), "{parts:?}");
    assert_ne!(parts[0], parts[1]);
    assert_eq!(parts[..2], parts[2..], "recognised again");
}

/// One person in two cameras is hardly more alike than two people are at times.
const POOR: Lens = Lens {
    common: 0.8,
    person: 1.0,
    person_in_camera: 1.2,
    moment: 1.0,
};

#[test]
fn a_poor_embedding_costs_some_identities_not_all() {
    let f1 = site_f1(POOR, 0..6);
    assert!(f1 > 0.75, "pairwise F1 {f1}");
}

fn visit(tracklet: u64, person: usize, camera: usize, start: f64, end: f64) -> Visit {
    Visit {
        tracklet,
        person,
        camera,
        start,
        end,
    }
}

fn given_bars() -> AssociateConfig {
    AssociateConfig {
        match_score: Some(0.5),
        margin: Some(0.05),
        mint: Some(0.4),
        enrich: Some(0.55),
        ..AssociateConfig::default()
    }
}

#[test]
fn pending_until_seen_well_enough_then_recognised_in_the_next_camera() {
    let mut site = Site::new(1, GOOD, 3);
    let mut a = associator(given_bars(), 2);
    for i in 0..4 {
        let o = site.observation(0, 0, 0, f64::from(i) * 0.1);
        a.observe(o).unwrap();
        if i < 3 {
            assert!(a.decide(f64::from(i) * 0.1).unwrap().is_empty());
        }
        assert_eq!(a.decision(TrackletId(0)), Decision::Pending);
    }
    let visits = [
        visit(1, 0, 0, 0.0, 4.0),
        visit(2, 1, 0, 1.0, 5.0),
        visit(3, 0, 1, 7.0, 11.0),
    ];
    let mut a = associator(given_bars(), 2);
    let (last, _) = play(&mut site, &mut a, &visits);
    assert!(matches!(last[&1], Decision::New { .. }), "{:?}", last[&1]);
    assert!(
        matches!(last[&3], Decision::Matched { .. }),
        "{:?}",
        last[&3]
    );
    assert_eq!(last[&1].identity(), last[&3].identity());
    assert_ne!(last[&1].identity(), last[&2].identity());
    let seen = a.gallery().sightings(last[&1].identity().unwrap()).unwrap();
    let cameras: Vec<&str> = seen.iter().map(|s| s.camera.as_str()).collect();
    assert_eq!(cameras, ["cam0", "cam1"]);
}

/// Who is in one camera twice at an instant, or in two cameras that do not overlap.
fn doubled(visits: &[Visit], last: &BTreeMap<u64, Decision>) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for (i, a) in visits.iter().enumerate() {
        for b in &visits[i + 1..] {
            let together = a.start.max(b.start) + 0.25 < a.end.min(b.end);
            let id = last[&a.tracklet].identity();
            if together && id.is_some() && id == last[&b.tracklet].identity() {
                found.push((a.tracklet, b.tracklet));
            }
        }
    }
    found
}

#[test]
fn one_shared_instant_in_two_cameras_makes_two_people() {
    let mut site = Site::new(2, GOOD, 3);
    site.people[1] = site.people[0].clone();
    // The last look at the first and the first look at the second are one instant.
    let visits = [visit(1, 0, 0, 0.0, 6.0), visit(2, 1, 1, 6.0, 12.0)];
    let mut a = associator(given_bars(), 2);
    let (last, _) = play(&mut site, &mut a, &visits);
    assert!(last[&1].identity().is_some(), "{last:?}");
    assert_ne!(last[&1].identity(), last[&2].identity(), "{last:?}");
}

#[test]
fn twins_seen_together_are_two_people() {
    let mut site = Site::new(2, GOOD, 4);
    site.people[1] = site.people[0].clone();
    site.bent.insert((0, 0), vec![0.0; WIDTH]);
    site.bent.insert((1, 0), vec![0.0; WIDTH]);
    let visits = [visit(1, 0, 0, 0.0, 6.0), visit(2, 1, 0, 2.0, 8.0)];
    let mut a = associator(given_bars(), 1);
    let (last, _) = play(&mut site, &mut a, &visits);
    assert!(
        last[&1].identity().is_some() && last[&2].identity().is_some(),
        "{last:?}"
    );
    assert_ne!(last[&1].identity(), last[&2].identity());
}

#[test]
fn one_person_in_two_cameras_at_once_only_where_cameras_overlap() {
    let visits = [visit(1, 0, 0, 0.0, 6.0), visit(2, 0, 1, 1.0, 7.0)];
    for overlapping in [false, true] {
        let config = AssociateConfig {
            overlapping,
            ..given_bars()
        };
        let mut a = associator(config, 2);
        let (last, _) = play(&mut Site::new(3, GOOD, 1), &mut a, &visits);
        assert_eq!(
            last[&1].identity() == last[&2].identity(),
            overlapping,
            "{last:?}"
        );
    }
}

#[test]
fn nobody_travels_faster_than_the_way_allows() {
    let visits = [visit(1, 0, 0, 0.0, 4.0), visit(2, 0, 1, 6.0, 10.0)];
    for (secs, same) in [(1.0, true), (5.0, false)] {
        let way = Travel {
            from: "cam1".into(),
            to: "cam0".into(),
            min_secs: secs,
        };
        let mut a = associator(
            AssociateConfig {
                travel: vec![way],
                ..given_bars()
            },
            2,
        );
        let (last, _) = play(&mut Site::new(4, GOOD, 1), &mut a, &visits);
        assert_eq!(
            last[&1].identity() == last[&2].identity(),
            same,
            "{secs} s: {last:?}"
        );
    }
}

#[test]
fn a_claim_made_too_early_is_corrected_with_the_ids_claimed_before() {
    // The second tracklet starts with looks at a stranger's coat, then shows who it is.
    let mut site = Site::new(5, GOOD, 3);
    let mut a = associator(given_bars(), 2);
    let mut all = Vec::new();
    for i in 0..80 {
        let time = f64::from(i) * 0.25;
        if time <= 4.0 {
            a.observe(site.observation(1, 0, 0, time)).unwrap();
        }
        if time == 5.0 {
            a.ended(TrackletId(1), time).unwrap();
        }
        if (6.0..=18.0).contains(&time) {
            let mut o = site.observation(2, if time < 8.0 { 2 } else { 0 }, 1, time);
            o.quality = if time < 8.0 { 0.1 } else { 0.9 };
            a.observe(o).unwrap();
        }
        all.extend(a.decide(time).unwrap());
    }
    all.extend(a.finish(20.0).unwrap());
    let of_two: Vec<&Assignment> = all.iter().filter(|x| x.tracklet == TrackletId(2)).collect();
    let first = of_two.iter().find_map(|x| x.decision.identity()).unwrap();
    let last = of_two.last().unwrap();
    assert_eq!(
        last.decision.identity(),
        a.decision(TrackletId(1)).identity()
    );
    assert_eq!(last.previous_ids, vec![first]);
    assert_eq!(
        a.gallery().resolve(first).unwrap(),
        last.decision.identity()
    );
    assert_eq!(a.gallery().len(), 1);
}

#[test]
fn too_few_looks_never_make_an_identity() {
    let mut site = Site::new(6, GOOD, 2);
    let mut a = associator(given_bars(), 1);
    a.observe(site.observation(1, 0, 0, 0.0)).unwrap();
    a.ended(TrackletId(1), 0.1).unwrap();
    a.ended(TrackletId(99), 0.1).unwrap();
    assert!(a.decide(0.2).unwrap().is_empty());
    assert!(a.finish(1.0).unwrap().is_empty());
    assert!(a.gallery().is_empty());
}

#[test]
fn what_is_no_embedding_is_refused_and_changes_nothing() {
    let mut site = Site::new(7, GOOD, 1);
    let mut a = associator(given_bars(), 1);
    let good = site.observation(1, 0, 0, 0.0);
    let bad = |change: fn(&mut Observation)| {
        let mut o = good.clone();
        change(&mut o);
        o
    };
    for (o, word) in [
        (bad(|o| o.embedding[3] = f32::NAN), "refused"),
        (bad(|o| o.embedding[3] = f32::INFINITY), "refused"),
        (bad(|o| o.embedding = vec![0.0; WIDTH]), "zero"),
        (bad(|o| o.embedding = vec![1.0; 3]), "width 3"),
        (bad(|o| o.camera = 5), "camera 5"),
        (bad(|o| o.time = f64::NAN), "not a time"),
    ] {
        let error = a.observe(o).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(a.finish(1.0).unwrap().is_empty());
}

#[test]
fn bad_configuration_names_key_value_and_remedy() {
    let cameras = ["door".to_owned()];
    let base = AssociateConfig::default;
    for (config, words) in [
        (
            AssociateConfig {
                match_score: Some(1.5),
                ..base()
            },
            ["match", "1.5"],
        ),
        (
            AssociateConfig {
                match_score: Some(0.5),
                mint: Some(0.6),
                ..base()
            },
            ["mint", "0.6"],
        ),
        (AssociateConfig { far: 0.0, ..base() }, ["far", "0"]),
        (
            AssociateConfig {
                min_crops: 0,
                ..base()
            },
            ["min_crops", "at least 1"],
        ),
        (
            AssociateConfig {
                min_secs: f64::NAN,
                ..base()
            },
            ["min_secs", "NaN"],
        ),
        (
            AssociateConfig {
                travel: vec![Travel {
                    from: "dor".into(),
                    to: "door".into(),
                    min_secs: 1.0,
                }],
                ..base()
            },
            ["dor", "must name a camera: door"],
        ),
    ] {
        let error = config.check(&cameras).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
    let unknown = toml::from_str::<AssociateConfig>("mach = 0.5")
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("mach"), "{unknown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_nobody_is_doubled_and_every_id_is_known(
        seed in 0u64..1_000,
        people in 2usize..8,
        twins in any::<bool>(),
    ) {
        let visits = walks(seed, people, 2);
        let mut site = Site::new(seed, GOOD, people);
        if twins { site.people[1] = site.people[0].clone(); }
        let mut a = associator(AssociateConfig::default(), 2);
        let (last, all) = play(&mut site, &mut a, &visits);
        prop_assert!(doubled(&visits, &last).is_empty(), "{:?}", doubled(&visits, &last));
        // The events alone tell the final state.
        let mut told: HashMap<u64, Option<IdentityId>> = HashMap::new();
        for x in &all {
            told.insert(x.tracklet.0, x.decision.identity());
            if let Decision::Matched { score, .. } = x.decision {
                prop_assert!((-1.0..=1.0).contains(&score));
            }
        }
        for (tracklet, decision) in &last {
            prop_assert_eq!(told.get(tracklet).copied().flatten(), decision.identity());
            if let Some(id) = decision.identity() {
                prop_assert!(a.gallery().profile(id).is_some());
                let seen = a.gallery().sightings(id).unwrap();
                prop_assert!(seen.iter().any(|s| s.tracklet.0 == *tracklet));
            }
        }
        let mut b = associator(AssociateConfig::default(), 2);
        let mut site = Site::new(seed, GOOD, people);
        if twins { site.people[1] = site.people[0].clone(); }
        let (again, _) = play(&mut site, &mut b, &visits);
        prop_assert_eq!(pair_f1(&visits, &last), pair_f1(&visits, &again));
    }
}
